"""`SurveyMaps`: the latest coarse maps of surveys, until their rescans are measured.

They are HDF5 files in a folder beside the pairs, so that a rescan finds the map that it belongs to
in whichever process it is analyzed. The oldest ones are deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from pathlib import Path

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.store.ledger import file_name
from xrf_sr_plans.store.pairs.map_file import map_in, map_to_bytes
from xrf_sr_plans.store.pairs.pair_records import origin_of
from xrf_sr_plans.store.pairs.stored_pair import MapOrigin

MOST_BYTES = 2**30
"""Largest total size of the files."""
_ORIGIN = "origin"


class SurveyMaps:
    """Coarse maps by the uid of their runs.

    Parameters
    ----------
    folder
        Folder of the files, which is made when the first map is kept.
    most_bytes
        Largest total size of the files.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def keep(self, maps: ElementalMaps, origin: MapOrigin) -> None:
        """Remember the map of the run that `origin` names.

        Raises
        ------
        OSError
            The file can't be written.
        """
        dataset = maps.dataset.assign_attrs({_ORIGIN: origin.to_dict()})
        content = map_to_bytes(ElementalMaps(dataset, maps.grid), compression=None)
        stem = file_name(origin.run_uid)
        path = self._folder / f"{stem}.{hashlib.sha256(content).hexdigest()}.h5"
        if path.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        # Not the number of this process, which one on another host may have as well.
        part = path.with_name(f".{stem}.{uuid.uuid4().hex[:12]}.part")
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        self._delete_oldest()

    def recall(self, run_uid: str) -> tuple[ElementalMaps, MapOrigin] | None:
        """Return the latest map of a run, or None where it isn't known.

        Raises
        ------
        FileFormatError
            The file is damaged. The message names it.
        """
        paths = sorted(self._folder.glob(f"{file_name(run_uid)}.*.h5"), key=_age)
        if not paths:
            return None
        maps = map_in(paths[-1], paths[-1].suffixes[-2].removeprefix("."))
        attrs = maps.attrs
        origin = origin_of(attrs.pop(_ORIGIN, {}))
        dataset = maps.dataset.copy()
        dataset.attrs = attrs
        return ElementalMaps(dataset, maps.grid), origin

    def _delete_oldest(self) -> None:
        size = 0
        for number, path in enumerate(sorted(self._folder.glob("*.h5"), key=_age, reverse=True)):
            # Another process may have deleted the file already.
            with contextlib.suppress(OSError):
                size += path.stat().st_size
                if number and size > self._most_bytes:
                    path.unlink()


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name
