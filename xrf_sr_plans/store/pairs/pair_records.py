"""What the log of a store gets about maps and pairs, and how such records compare."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.store.pairs.pair_index import KnownPair
from xrf_sr_plans.store.pairs.pair_log import MapAdded, PairAdded
from xrf_sr_plans.store.pairs.stored_pair import MapOrigin, PairSource, Split

UNNAMED = "unnamed"
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def check_uid(pair_uid: str) -> None:
    """Refuse a uid of a pair that files or people can't be told.

    Raises
    ------
    ConfigError
        It has other characters than are allowed.
    """
    if not _UID.fullmatch(pair_uid):
        raise ConfigError(f"pair uid {pair_uid!r:.120}: letters, digits, '-' and '_' are allowed")


def map_record(
    pair_uid: str,
    position: int,
    factor: int,
    maps: ElementalMaps,
    content: str,
    file: str,
    origin: MapOrigin,
) -> MapAdded:
    """Return what the log gets about a map that is in `file`."""
    counts, attrs = maps.counts.values, maps.attrs
    totals = np.nansum(counts, axis=(1, 2))
    return MapAdded(
        time=time.time(),
        pair_uid=pair_uid,
        position=position,
        factor=factor,
        content=content,
        file=file,
        shape=maps.grid.shape,
        step_um=(maps.grid.slow.step_um, maps.grid.fast.step_um),
        totals=dict(zip(maps.elements, map(float, totals), strict=True)),
        measured=int((maps.coverage.values > 0).sum()),
        dwell_ms=_number(attrs.get("dwell_ms")),
        probe_fwhm_um=_number(attrs.get("probe_fwhm_um")),
        sampling=str(attrs.get("sampling") or "fly"),
        origin=origin.to_dict(),
    )


def pair_record(
    pair_uid: str,
    maps: Mapping[int, MapAdded],
    registration: Mapping[int, PairRegistration],
    sample: str,
    split: Split,
    source: PairSource,
    problem: str,
) -> PairAdded:
    """Return what the log gets about a complete pair."""
    return PairAdded(
        time=time.time(),
        pair_uid=pair_uid,
        maps={position: maps[position].content for position in sorted(maps)},
        registration={
            position: registration[position].to_dict() for position in sorted(registration)
        },
        sample=sample,
        split=split,
        source=source,
        problem=problem,
        package=package_version(),
    )


def has_more(known: MapAdded, maps: ElementalMaps, origin: MapOrigin) -> bool:
    """Return whether a stored map has more pixels than another one, of the same run."""
    same_run = known.origin.get("run_uid") == origin.run_uid
    return same_run and known.measured > int((maps.coverage.values > 0).sum())


def says_the_same(known: KnownPair | None, record: PairAdded) -> bool:
    """Return whether a record says of a pair what is known already."""
    leave_out = {"time", "package"}
    # As texts, because NaN is not equal to itself.
    return known is not None and (
        known.record.model_dump_json(exclude=leave_out) == record.model_dump_json(exclude=leave_out)
    )


def sample_of(origins: Sequence[MapOrigin]) -> str:
    """Return the name of the sample of maps.

    Where none is given, all that one beamline measured on one day (UTC) counts as one sample. Two
    samples thus become one rather than one sample two, which would be learnt from and held out.
    """
    named = [origin.sample.strip() for origin in origins if origin.sample.strip()]
    if named:
        return named[0]
    beamlines = [origin.beamline for origin in origins if origin.beamline]
    times = [origin.time for origin in origins if origin.time is not None]
    day = time.strftime("%Y-%m-%d", time.gmtime(min(times, default=time.time())))
    return ", ".join([UNNAMED, *beamlines[:1], day])


def origin_of(plain: Mapping[str, Any]) -> MapOrigin:
    """Return the origin that a record of a map holds."""
    known = MapOrigin.__dataclass_fields__
    return MapOrigin(**{key: value for key, value in plain.items() if key in known})


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def package_version() -> str:
    """Return the version of this package, or "" where it isn't installed."""
    try:
        return version("xrf-sr-plans")
    except PackageNotFoundError:
        return ""
