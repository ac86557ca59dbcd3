"""Emission lines: what is excited, what gets out of the sample, what the detector sees.

Atomic data are those of XrayDB (M. Newville, public domain; W. T. Elam et al., Radiat. Phys.
Chem. 63 (2002) 121, DOI 10.1016/S0969-806X(01)00227-4), which comes with the extra ``train``.
The model is a flat, homogeneous matrix with parallel beams and no secondary fluorescence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xrf_sr_plans.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import types

_SERIES = (("K", "K"), ("L", "L3"), ("M", "M5"))
_CM_PER_UM = 1e-4


@dataclass(frozen=True)
class Line:
    """The strongest line of an element that a beam excites."""

    element: str
    name: str
    energy_ev: float
    edge_ev: float
    production_cm2_g: float
    """Fluorescence production cross-section at the excitation energy."""


@dataclass(frozen=True)
class Spectrometer:
    """An energy-dispersive detector behind a window and a path through air."""

    material: str = "Si"
    density_g_cm3: float = 2.329
    thickness_um: float = 450.0
    window: str = "Be"
    window_density_g_cm3: float = 1.848
    window_um: float = 12.5
    air_mm: float = 20.0
    """0 for a detector in vacuum or helium."""


@dataclass(frozen=True)
class Matrix:
    """What surrounds the elements of interest, and the geometry."""

    formula: str
    density_g_cm3: float
    thickness_um: float
    incidence_deg: float = 75.0
    """Between the beam and the surface."""
    takeoff_deg: float = 15.0
    """Between the surface and the detector."""

    def __post_init__(self) -> None:
        for name in ("density_g_cm3", "thickness_um", "incidence_deg", "takeoff_deg"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"matrix {self.formula!r}: {name} is {value}; it must be above 0")


def _xraydb() -> types.ModuleType:
    try:
        import xraydb
    except ImportError as error:
        raise MissingExtraError("the physics of emission lines", "train") from error
    return xraydb


def _transmission(formula: str, density: float, thickness_cm: float, energy_ev: float) -> float:
    return float(np.exp(-_mu(formula, density, energy_ev) * thickness_cm))


@lru_cache(maxsize=4096)
def _mu(formula: str, density: float, energy_ev: float) -> float:
    """Return the linear attenuation coefficient in 1/cm."""
    try:
        return float(_xraydb().material_mu(formula, energy_ev, density=density))
    except ValueError as error:
        raise ConfigError(f"material {formula!r}: {error}") from error


@lru_cache(maxsize=1024)
def main_line(element: str, excitation_ev: float) -> Line:
    """Return the main line of an element: of the deepest shell that the beam can ionise.

    Raises
    ------
    ConfigError
        Not an element, or nothing of it is excited at this energy.
    """
    xraydb = _xraydb()
    try:
        edges = xraydb.xray_edges(element)
    except ValueError as error:
        raise ConfigError(f"{element!r} is not a chemical element") from error
    for series, level in _SERIES:
        edge = edges.get(level)
        if edge is None or edge.energy >= excitation_ev:
            continue
        found = {
            name: line
            for name, line in xraydb.xray_lines(element, level).items()
            if name.startswith(series)
        }
        if not found or edge.fyield <= 0:
            continue
        name, line = max(found.items(), key=lambda item: item[1].intensity)
        ionised = float(xraydb.mu_elam(element, excitation_ev, kind="photo"))
        share = 1 - 1 / edge.jump_ratio
        produced = ionised * share * edge.fyield * line.intensity
        return Line(element, name, line.energy, edge.energy, produced)
    raise ConfigError(f"{element}: no line is excited at {excitation_ev:.0f} eV")


def detector_efficiency(energy_ev: float, detector: Spectrometer | None = None) -> float:
    """Return the share of photons of an energy that reach the detector and stop in it."""
    detector = detector or Spectrometer()
    stopped = 1 - _transmission(
        detector.material, detector.density_g_cm3, detector.thickness_um * _CM_PER_UM, energy_ev
    )
    window = _transmission(
        detector.window, detector.window_density_g_cm3, detector.window_um * _CM_PER_UM, energy_ev
    )
    # Dry air at 20 degC by its main components; argon counts for its K edge.
    air = _transmission("N1.562O0.42Ar0.0093", 1.204e-3, detector.air_mm / 10, energy_ev)
    return stopped * window * air


def self_absorption(energy_ev: float, matrix: Matrix, excitation_ev: float) -> float:
    """Return the share of a line that survives absorption, on the way in and out, averaged.

    ``(1 - exp(-a)) / a`` with ``a = t (mu(E0) / sin(incidence) + mu(E) / sin(take-off))``:
    1 for a thin sample (J. Sherman, Spectrochim. Acta 7 (1955) 283,
    DOI 10.1016/0371-1951(55)80041-0).
    """
    into = _mu(matrix.formula, matrix.density_g_cm3, excitation_ev)
    out = _mu(matrix.formula, matrix.density_g_cm3, energy_ev)
    path = into / np.sin(np.radians(matrix.incidence_deg))
    path += out / np.sin(np.radians(matrix.takeoff_deg))
    absorbed = path * matrix.thickness_um * _CM_PER_UM
    return float(-np.expm1(-absorbed) / absorbed) if absorbed > 1e-9 else 1.0


def sensitivity(
    elements: Sequence[str],
    excitation_ev: float,
    *,
    matrix: Matrix | None = None,
    detector: Spectrometer | None = None,
) -> np.ndarray:
    """Return detected photons per unit of areal mass, relative to the strongest, (element,).

    Multiply maps of mass by it to get maps of the rates that `forward.detect` counts.
    """
    strength = []
    for element in elements:
        line = main_line(element, excitation_ev)
        seen = line.production_cm2_g * detector_efficiency(line.energy_ev, detector)
        if matrix is not None:
            seen *= self_absorption(line.energy_ev, matrix, excitation_ev)
        strength.append(seen)
    relative = np.array(strength)
    return relative / relative.max()
