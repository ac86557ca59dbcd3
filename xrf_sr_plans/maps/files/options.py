"""`ReadOptions`: what a user knows better than a file or a run does."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.units import um_per_unit

KEY_ROLES = ("i0", "live_time", "fast", "slow", "stream")
"""What a data key of a run can be named for: the flux monitor, the live time, the readings of the
fast and of the slow axis; and the stream with the counts."""


_OF_RUNS = ("channels", "keys", "root_map")


@dataclass(frozen=True)
class ReadOptions:
    """What a user knows better than the file or the run does.

    Parameters
    ----------
    step_um
        Step of the scan along both axes, in um; the positions in the file count only for their
        direction then. None: the file counts.
    step_y_um
        Step along y, where `step_um` is only that along x.
    axis_unit
        Unit of the positions, which replaces what the file says; None: the file counts.
    elements
        Names of the elements whose lines are cut out of spectra (Fe, Pb_L); empty: what the file
        itself names.
    lines_kev
        Energy of the line of each of the elements, in keV; looked up where it is empty.
    energy_kev
        Energy of channel 0 and width of a channel, in keV, for spectra; None: the file counts.
    channels
        Of runs: each element with the data keys of its counts, which are added up; empty: by the
        names of the data keys.
    keys
        Of runs: the data keys of what a frame has once, and the name of the stream, each behind
        one of `KEY_ROLES`.
    root_map
        Of runs: each root of files that documents name, with the folder that stands for it here.

    Raises
    ------
    ConfigError
        A step that is not above 0, an unknown unit of length or role, or an energy axis that does
        not rise.
    """

    step_um: float | None = None
    step_y_um: float | None = None
    axis_unit: str | None = None
    elements: tuple[str, ...] = ()
    lines_kev: tuple[float, ...] = ()
    energy_kev: tuple[float, float] | None = None
    channels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    root_map: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("step_um", "step_y_um"):
            step_um = getattr(self, name)
            if step_um is not None and not 0 < step_um < math.inf:
                raise ConfigError(f"{name} is {step_um}; it must be finite and above 0")
        if self.axis_unit is not None:
            um_per_unit(self.axis_unit, "axis_unit", missing_um=None)
        if self.energy_kev is not None and not (
            math.isfinite(self.energy_kev[0]) and 0 < self.energy_kev[1] < math.inf
        ):
            raise ConfigError(
                f"energy_kev is {self.energy_kev}; the energy of channel 0 and a width of a"
                " channel above 0, in keV, are needed"
            )
        for role, _ in self.keys:
            if role not in KEY_ROLES:
                raise ConfigError(f"key {role!r}: it should be one of {', '.join(KEY_ROLES)}")

    @property
    def of_runs(self) -> list[str]:
        """What is said here that only runs of documents have, by name."""
        return [name for name in _OF_RUNS if getattr(self, name)]

    @property
    def of_files(self) -> list[str]:
        """What is said here that only files of maps have, by name."""
        return [name for name in ("step_um", "step_y_um") if getattr(self, name) is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of files, as JSON has it."""
        known = asdict(self)
        return {name: known[name] for name in known if name not in _OF_RUNS}

    @classmethod
    def from_dict(cls, known: dict[str, Any]) -> ReadOptions:
        """Return options that were written by `to_dict`."""
        energy = known["energy_kev"]
        return cls(
            step_um=known["step_um"],
            step_y_um=known["step_y_um"],
            axis_unit=known["axis_unit"],
            elements=tuple(known["elements"]),
            lines_kev=tuple(known["lines_kev"]),
            energy_kev=None if energy is None else (float(energy[0]), float(energy[1])),
        )

    @property
    def there(self) -> ReadOptions:
        """The same, with its folders named from the root, for a process in another folder."""
        roots = tuple((root, os.path.abspath(folder)) for root, folder in self.root_map)
        return replace(self, root_map=roots)
