"""`ReadOptions`: what a user knows better than a file does."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.units import um_per_unit


@dataclass(frozen=True)
class ReadOptions:
    """What a user knows better than the file does.

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

    Raises
    ------
    ConfigError
        A step that is not above 0, an unknown unit of length, or an energy axis that does not
        rise.
    """

    step_um: float | None = None
    step_y_um: float | None = None
    axis_unit: str | None = None
    elements: tuple[str, ...] = ()
    lines_kev: tuple[float, ...] = ()
    energy_kev: tuple[float, float] | None = None

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

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON has them."""
        return asdict(self)

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
