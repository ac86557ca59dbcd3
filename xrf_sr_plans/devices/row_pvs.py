"""Which process variables make a row of frames, to be adapted to a beamline's EPICS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ophyd import Component, EpicsSignal, EpicsSignalRO

_COLUMNS = ("i0", "live_time", "fast", "slow")
"""The waveforms that a detector may lack."""


@dataclass(frozen=True)
class RowPVs:
    """The full names of a detector's PVs, by what they do.

    Lengths are in the unit of the axis. A detector may lack the PVs whose default is None: frames
    are then placed by their index (no `fast`, `slow`), all of the dwell counts as live time (no
    `live_time`), and I0 is unknown (no `i0`).

    Parameters
    ----------
    arm
        Takes 1 before a row and 0 to give the row up. Where the IOC has put-completion, the put
        that arms completes with the row.
    busy
        Reads 1 once triggers are counted, and 0 once the row's waveforms are there.
    num
        Takes the number of frames.
    dwell
        Takes the time of one frame, in s.
    counts
        Waveform of photons per frame, by element name. Several waveforms, one per detector
        element, are summed.
    start
        Takes the first edge of the row, where position compare triggers the first frame.
    step
        Takes the distance between triggers, which is negative for a row flown back.
    taken
        Reads the number of frames counted. A row of fewer frames than asked for has failed.
    i0
        Waveform of the beam monitor, in counts per frame.
    live_time
        Waveform of the live time of each frame, in s.
    fast
        Waveform of the fast axis's encoder position in the middle of each frame.
    slow
        Waveform of the slow axis's encoder position in the middle of each frame.
    before_row
        Values to be written before each row, by PV and in this order, for instance to erase the
        last row or to set trigger modes.
    """

    arm: str
    busy: str
    num: str
    dwell: str
    counts: Mapping[str, str | tuple[str, ...]]
    start: str | None = None
    step: str | None = None
    taken: str | None = None
    i0: str | None = None
    live_time: str | None = None
    fast: str | None = None
    slow: str | None = None
    before_row: Mapping[str, Any] = field(default_factory=dict)

    def waveforms(self, element: str) -> dict[str, str]:
        """Return the waveforms that are summed for an element, by the name of their component."""
        names = self.counts[element]
        names = (names,) if isinstance(names, str) else names
        return {f"counts_{element}_{k}": name for k, name in enumerate(names)}

    def components(self) -> dict[str, Component]:
        """Return an ophyd component for each PV.

        A component has the name of its field here, except that the waveforms of `counts` have
        those that `waveforms` returns and the PVs of `before_row` are numbered ``before_0`` on.
        """
        written = {role: getattr(self, role) for role in ("arm", "num", "dwell", "start", "step")}
        written |= {f"before_{k}": name for k, name in enumerate(self.before_row)}
        read = {role: getattr(self, role) for role in ("busy", "taken", *_COLUMNS)}
        for element in self.counts:
            read |= self.waveforms(element)
        # Values are asked for each time, because a monitored one may be that of the last row.
        return {
            role: Component(EpicsSignal, name, kind="omitted", put_complete=True)
            for role, name in written.items()
            if name is not None
        } | {
            role: Component(EpicsSignalRO, name, kind="omitted", auto_monitor=False)
            for role, name in read.items()
            if name is not None
        }
