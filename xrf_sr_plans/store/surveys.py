"""`Surveys`: what of a survey must be remembered to put its maps together.

On disk these are ``<folder>/surveys/<survey uid>/end.json`` and ``fine-<run uid>.npz`` beside it,
which are read back without pickle. Several processes may share a folder. The predictions of the
tiles are in `store.predictions`.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.files.npz_archive import read_arrays
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.store.ledger import file_name

logger = logging.getLogger(__name__)

IN_MEMORY_BYTES = 2**27
"""Largest total size of the fine maps kept in memory; the oldest ones are dropped."""
ON_DISK_BYTES = 2**30
"""Largest total size of the files; the surveys that were not touched for longest are deleted."""
MOST_ENDS = 256
"""Number of surveys of which it is known in memory that they are over."""

_ARRAYS = ("counts", "i0", "live_time_s", "coverage")
_MAX_END_BYTES = 2**20


@dataclass(frozen=True)
class SurveyEnd:
    """What the run of a survey's outcomes says about it."""

    survey_uid: str
    outcomes_uid: str
    """Uid of the run of its outcomes."""
    time: float
    """When that run stopped, in seconds since 1970."""
    tiles: tuple[str, ...]
    """Uids of the coarse maps' runs, in the order of flight."""
    ended_by: str = ""
    """What ended the survey early, in words; empty where it is complete."""
    beamline: str = ""

    @classmethod
    def of(cls, start: Mapping[str, Any], time: float) -> SurveyEnd:
        """Return what the start document of the run of the outcomes says.

        Parameters
        ----------
        start
            The start document.
        time
            When the run stopped, in seconds since 1970.
        """
        metadata = start["xrf_sr"]
        return cls(
            str(metadata.get("survey_uid") or ""),
            str(start["uid"]),
            time,
            tuple(str(uid) for uid in metadata.get("tiles") or ()),
            str(metadata.get("ended_by") or ""),
            str(metadata.get("beamline") or ""),
        )


@dataclass(frozen=True, eq=False)
class KeptFineMap:
    """A fine map of a survey, and when its run ended."""

    uid: str
    time: float
    """When its run stopped, in seconds since 1970."""
    maps: ElementalMaps

    @property
    def order(self) -> tuple[float, str]:
        """Sort key: fine maps are in the order in which they ended."""
        return self.time, self.uid

    @property
    def size(self) -> int:
        """Number of bytes that it takes."""
        return sum(int(self.maps.dataset[name].nbytes) for name in _ARRAYS)


class Surveys:
    """Fine maps and ends of surveys, by the uid of the survey.

    What is kept is limited by `IN_MEMORY_BYTES`, `MOST_ENDS` and `ON_DISK_BYTES`.

    Parameters
    ----------
    folder
        Folder in which they also outlive a restart. With None they are kept in memory only.
    on_disk_bytes
        Largest total size of the files.
    """

    def __init__(self, folder: str | Path | None, on_disk_bytes: int = ON_DISK_BYTES) -> None:
        self.folder = None if folder is None else Path(folder) / "surveys"
        self._on_disk_bytes = on_disk_bytes
        self._fine: OrderedDict[tuple[str, str], KeptFineMap] = OrderedDict()
        self._ends: OrderedDict[str, SurveyEnd] = OrderedDict()

    def keep_end(self, end: SurveyEnd) -> None:
        """Remember that a survey is over.

        Raises
        ------
        OSError
            The file can't be written. It is in memory nevertheless.
        """
        self._ends[end.survey_uid] = end
        self._ends.move_to_end(end.survey_uid)
        while len(self._ends) > MOST_ENDS:
            self._ends.popitem(last=False)
        if home := self._home(end.survey_uid, make=True):
            text = json.dumps(asdict(end))
            self._write(home / "end.json", lambda part: part.write_text(text))

    def end_of(self, survey_uid: str) -> SurveyEnd | None:
        """Return how a survey ended, or None where it is not known to be over."""
        known = self._ends.get(survey_uid)
        home = self._home(survey_uid)
        if known is not None or home is None:
            return known
        try:
            with (home / "end.json").open("rb") as file:
                facts = json.loads(file.read(_MAX_END_BYTES))
            return SurveyEnd(**{**facts, "tiles": tuple(facts["tiles"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            logger.warning("%s: not how a survey ended: %s", home / "end.json", in_words(error))
            return None

    def keep_fine(self, survey_uid: str, fine: KeptFineMap) -> None:
        """Remember a fine map of a survey, unless more pixels of the same run are known.

        Raises
        ------
        OSError
            The file can't be written. The map is in memory nevertheless.
        """
        known = self._recall(survey_uid, fine.uid)
        if known is not None and _pixels(known) > _pixels(fine):
            logger.warning("fine map %s stays as it is: it has more pixels", fine.uid)
            return
        key = (survey_uid, fine.uid)
        self._fine[key] = fine
        self._fine.move_to_end(key)
        while len(self._fine) > 1 and sum(one.size for one in self._fine.values()) > (
            IN_MEMORY_BYTES
        ):
            self._fine.popitem(last=False)
        if home := self._home(survey_uid, make=True):
            self._write(_path(home, fine.uid), lambda part: _save(part, fine))
            self._delete_oldest(home)

    def fine_maps(self, survey_uid: str) -> list[KeptFineMap]:
        """Return the fine maps of a survey in the order in which they ended.

        Files that are damaged are left out with a warning.
        """
        found = {uid: fine for (survey, uid), fine in self._fine.items() if survey == survey_uid}
        home = self._home(survey_uid)
        for path in sorted(home.glob("fine-*.npz")) if home else ():
            # By its file's name, so that what is in memory isn't read again.
            if any(_path(path.parent, uid) == path for uid in found):
                continue
            try:
                fine = _load(path)
            except FileFormatError as error:
                logger.warning("a fine map is left out: %s", error)
                continue
            found[fine.uid] = fine
        return sorted(found.values(), key=lambda fine: fine.order)

    def _recall(self, survey_uid: str, uid: str) -> KeptFineMap | None:
        known = self._fine.get((survey_uid, uid))
        home = self._home(survey_uid)
        if known is not None or home is None or not _path(home, uid).exists():
            return known
        try:
            return _load(_path(home, uid))
        except FileFormatError:
            return None

    def _home(self, survey_uid: str, *, make: bool = False) -> Path | None:
        if self.folder is None:
            return None
        home = self.folder / file_name(survey_uid)
        if make:
            home.mkdir(parents=True, exist_ok=True)
        return home

    def _write(self, path: Path, write: Any) -> None:
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
        try:
            write(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _delete_oldest(self, current: Path) -> None:
        assert self.folder is not None
        homes = sorted(self.folder.iterdir(), key=_age, reverse=True)
        size = _size(current)
        for home in homes:
            if home != current:
                size += _size(home)
                if size > self._on_disk_bytes:
                    shutil.rmtree(home, ignore_errors=True)


def _pixels(fine: KeptFineMap) -> int:
    return int((fine.maps.coverage.values > 0).sum())


def _path(home: Path, uid: str) -> Path:
    return home / f"fine-{file_name(uid)}.npz"


def _save(path: Path, fine: KeptFineMap) -> None:
    facts = {
        "uid": fine.uid,
        "time": fine.time,
        "elements": fine.maps.elements,
        "grid": fine.maps.grid.to_dict(),
        "attrs": fine.maps.attrs,
    }
    arrays = {name: fine.maps.dataset[name].values for name in _ARRAYS}
    with path.open("wb") as file:
        text = np.array(json.dumps(facts, default=str))
        np.savez_compressed(file, allow_pickle=False, facts=text, **arrays)


def _load(path: Path) -> KeptFineMap:
    arrays = read_arrays(path, ("facts", *_ARRAYS))
    try:
        facts = json.loads(str(arrays.pop("facts")))
        maps = ElementalMaps.from_arrays(
            grid=ScanGrid.from_dict(facts["grid"]),
            elements=facts["elements"],
            **arrays,
            **facts["attrs"],
        )
        return KeptFineMap(str(facts["uid"]), float(facts["time"]), maps)
    except Exception as error:  # damaged facts can raise anything
        raise FileFormatError(f"{path}: no fine map of a survey: {in_words(error)}") from error


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _size(folder: Path) -> int:
    size = 0
    for path in folder.glob("*"):
        try:
            size += path.stat().st_size
        except OSError:
            # Another process may have deleted the file already.
            continue
    return size
