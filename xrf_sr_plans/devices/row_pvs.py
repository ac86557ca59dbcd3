"""Which process variables make a row of frames: what to adapt to a beamline's EPICS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ophyd import Component, EpicsSignal, EpicsSignalRO

_COLUMNS = ("i0", "live_time", "fast", "slow")


@dataclass(frozen=True)
class RowPVs:
    """Which PVs of a detector do what; full names.

    Lengths are in the unit of the axis. What has no PV (None) is done without: frames are placed
    by their index (`fast`, `slow`), all of the dwell counts as live, I0 is unknown.

    Parameters
    ----------
    arm
        Takes 1 before a row and 0 to give it up. Put-completion, where the IOC has it, is waited
        for as the end of the row.
    busy
        Reads 1 once triggers are counted, and 0 once the row's waveforms are there.
    num, dwell
        Take the number of frames and the time of one, in s.
    counts
        Waveform of photons per frame, for each element; several (detector elements) are summed.
    start, step
        Position compare: take the first edge of the row and the signed distance of triggers.
    taken
        Reads the number of frames counted; a row of fewer than asked for has failed.
    i0
        Waveform of the beam monitor, in counts per frame.
    live_time
        Waveform, in s.
    fast, slow
        Waveforms of encoder positions in the middle of each frame.
    before_row
        What else is written before each row, in order: erasing, trigger modes.
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
        """Return the waveforms that are summed for an element, by ophyd attribute."""
        names = self.counts[element]
        names = (names,) if isinstance(names, str) else names
        return {f"counts_{element}_{k}": name for k, name in enumerate(names)}

    def components(self) -> dict[str, Component]:
        """Return an ophyd component for each PV, by attribute: the role, mostly."""
        written = {role: getattr(self, role) for role in ("arm", "num", "dwell", "start", "step")}
        written |= {f"before_{k}": name for k, name in enumerate(self.before_row)}
        read = {role: getattr(self, role) for role in ("busy", "taken", *_COLUMNS)}
        for element in self.counts:
            read |= self.waveforms(element)
        # What is read is asked for each time: a monitored value may be that of the last row.
        return {
            role: Component(EpicsSignal, name, kind="omitted", put_complete=True)
            for role, name in written.items()
            if name is not None
        } | {
            role: Component(EpicsSignalRO, name, kind="omitted", auto_monitor=False)
            for role, name in read.items()
            if name is not None
        }
