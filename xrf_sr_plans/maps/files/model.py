"""What every reader returns, and the cleaning that every file needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError

MAX_VALUES = 2**29
_ABSURD = 1e30
_SYMBOLS_IN_ORDER = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se"
    " Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb"
    " Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu"
)
_SYMBOLS = frozenset(_SYMBOLS_IN_ORDER.split())
_CHANNEL = re.compile(r"([A-Z][a-z]?)(?:[ _-]?[KLM][abαβ]?\d?|\d{1,3})?")


@dataclass(frozen=True, eq=False)
class MapsFile:
    """Elemental maps as a file holds them.

    Parameters
    ----------
    maps
        (element, y, x) float; NaN where the file has no usable value.
    elements
        Channel names as in the file, in the order of `maps`.
    pixel_size_um
        Step along the fast axis; NaN where the file doesn't say.
    meta
        ``layout``, ``path``, ``units`` and what else the layout offers: ``pixel_size_y_um``,
        ``skipped`` (channels that are no elements), ``notes``.
    """

    maps: np.ndarray
    elements: tuple[str, ...]
    pixel_size_um: float
    meta: dict[str, Any] = field(default_factory=dict)


def is_element(name: str) -> bool:
    """Return whether a channel is an element's: Fe, Fe_K, Pb_L, Fe57; not COMPTON or TFY."""
    return bool(symbol(name))


def symbol(name: str) -> str:
    """Return the chemical symbol of a channel (Fe of Fe_K or Fe57); "" where it is no element's."""
    match = _CHANNEL.fullmatch(name)
    return match.group(1) if match is not None and match.group(1) in _SYMBOLS else ""


def build(
    maps: np.ndarray,
    elements: Sequence[str],
    *,
    layout: str,
    path: str,
    axes_um: Mapping[str, np.ndarray] | None = None,
    pixel_size_um: float = float("nan"),
    keep_all: bool = False,
    meta: Mapping[str, Any] | None = None,
) -> MapsFile:
    """Clean and check what a reader found.

    Values that are not finite or absurdly large (1.8e308 stands for "no value" in MAPS files)
    become NaN. Channels that are no elements (scatter peaks, fit residuals) are left out unless
    nothing else is there or `keep_all`. `axes_um` are the pixel centres along ``x`` and ``y``
    where the file has them, `pixel_size_um` is what counts where it hasn't.

    Raises
    ------
    FileFormatError
        The arrays don't fit together.
    """
    maps = np.asarray(maps)
    if maps.ndim != 3 or len(elements) != maps.shape[0] or min(maps.shape[1:], default=0) < 1:
        raise FileFormatError(
            f"{path}: {layout} maps have the shape {maps.shape} for {len(elements)} channel"
            " names; (element, y, x) is needed"
        )
    names = [str(name) for name in elements]
    chosen = [index for index, name in enumerate(names) if keep_all or is_element(name)]
    chosen = chosen or list(range(len(names)))
    clean = maps[chosen].astype(float)
    clean[~(np.abs(clean) < _ABSURD)] = np.nan
    axes_um = axes_um or {}
    step_x = _step(axes_um.get("x"), pixel_size_um)
    facts = {
        "layout": layout,
        "path": path,
        "pixel_size_y_um": _step(axes_um.get("y"), step_x),
        "skipped": [name for index, name in enumerate(names) if index not in set(chosen)],
        **(meta or {}),
    }
    return MapsFile(clean, tuple(names[index] for index in chosen), step_x, facts)


def _step(axis_um: np.ndarray | None, otherwise: float) -> float:
    if axis_um is None:
        return otherwise
    steps = np.abs(np.diff(np.asarray(axis_um, dtype=float)))
    steps = steps[np.isfinite(steps) & (steps > 0) & (steps < _ABSURD)]
    return float(np.median(steps)) if steps.size else otherwise


def read_array(dataset: Any, path: str) -> np.ndarray:
    """Read an HDF5 dataset of numbers, refusing what can't be a map.

    Raises
    ------
    FileFormatError
        Not a dataset of numbers, or one that claims more than 2^29 values.
    """
    shape, dtype = getattr(dataset, "shape", None), getattr(dataset, "dtype", None)
    if shape is None or dtype is None or dtype.kind not in "fiu":
        raise FileFormatError(f"{path}: {getattr(dataset, 'name', dataset)!r} holds no numbers")
    if int(np.prod(shape, dtype=object)) > MAX_VALUES:
        raise FileFormatError(f"{path}: {dataset.name!r} has the shape {shape}: too large")
    return np.asarray(dataset[()])


def read_names(dataset: Any) -> list[str]:
    """Read an HDF5 dataset of strings, of fixed or variable length."""
    return [
        (raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)).strip("\0 ")
        for raw in np.ravel(dataset[()])
    ]


_MICROMETRES = {
    **{"m": 1e6, "mm": 1e3, "nm": 1e-3, "pm": 1e-6, "cm": 1e4},
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre"), 1.0),
}


def micrometres_per(unit: Any) -> float:
    """Return how many um one `unit` is; units that are missing or unknown count as um."""
    return _MICROMETRES.get(_unit(unit), 1.0)


def unit_notes(units: Iterable[Any]) -> list[str]:
    """Return what to tell the user about axes whose `units` are missing or unknown."""
    strange = dict.fromkeys(_unit(unit) for unit in units if _unit(unit) not in _MICROMETRES)
    return [
        f"the axes have the unit {unit!r}: taken as um"
        if unit
        else "axes without unit: taken as um"
        for unit in strange
    ]


def _unit(unit: Any) -> str:
    if isinstance(unit, bytes):
        unit = unit.decode("utf-8", "replace")
    return "" if unit is None else str(unit).strip()
