"""`Hdf5File`: an HDF5 file that anybody may have written, or damaged, read with care.

* A file may refer to others: by external links, external storage and virtual data sets. These are
  read if they are named relative to the folder of the file and lie there or below, or if they lie
  below a configured folder (`roots`), symbolic links followed, and refused otherwise. A file from
  elsewhere thus can't show what only its reader may read.
* What a data set or an attribute declares is checked before memory is taken for it: the number of
  values, the size of a text, the size of a chunk, and all of it against the bytes that are stored.

No object of the file is to be reached in another way than by `Hdf5File.find`, because h5py follows
links without asking. libhdf5 itself can crash or hang on a damaged file, so `hdf5_process` does all
this in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xrf_sr_plans.errors import FileFormatError, MissingExtraError
from xrf_sr_plans.maps.files.npz_archive import INFLATION, MAX_BYTES, MAX_VALUES
from xrf_sr_plans.maps.files.roots import ROOTS_VARIABLE, configured_roots

MAX_TEXTS = 4096
"""Largest number of names, or of values of an attribute."""

MAX_TEXT_BYTES = 2**16
"""Longest name, and the largest total size of the values of an attribute."""

MAX_GROUPS = 5000
"""Number of groups, or of members of one group, after which a search ends."""

MAX_FILES = 64
"""Largest number of other files that a file may refer to by links."""

_MAX_HOPS = 16
# Those that libhdf5 and h5py bring along: none of them needs a plugin.
_KNOWN_FILTERS = (*range(1, 7), h5py.h5z.FILTER_LZF)
# Data that are not stored (fill values) and those of one chunk may take this much in any case.
_HARMLESS_BYTES = 2**26


class Hdf5File:
    """An open HDF5 file.

    Parameters
    ----------
    path
        The file.
    shown
        Its name in messages.
    before
        Called before each step that asks libhdf5 for something, with the number of values that it
        is going to read.

    Raises
    ------
    OSError
        It is no HDF5 file, or it can't be opened.
    """

    def __init__(
        self, path: Path, shown: str, before: Callable[[int], None] = lambda values: None
    ) -> None:
        path = path.resolve()
        self.shown = shown
        self._folder = path.parent
        self._roots = [root.resolve() for root in configured_roots()]
        self._before = before
        self._others: dict[Path, h5py.File] = {}
        before(0)
        self.root: Any = h5py.File(path, "r")

    def __enter__(self) -> Hdf5File:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._others.values(), self.root):
            file.close()

    def find(self, where: str, start: Any = None) -> Any:
        """Return the group or data set of a name, or None where there is none.

        Parameters
        ----------
        where
            Names with slashes between them.
        start
            Group from which the name counts; None: the root of the file.

        Raises
        ------
        FileFormatError
            A link on the way leads out of the folder, to a file that is not there, or in a circle.
        """
        return self._find(where, self.root if start is None else start, _MAX_HOPS)

    def members(self, group: Any) -> list[str]:
        """Return the names of a group's members, `MAX_GROUPS` at most."""
        self._before(0)
        return list(islice(group, MAX_GROUPS))

    def groups(self) -> Iterator[Any]:
        """Yield the groups of the file without following links, which can make loops.

        The search ends after `MAX_GROUPS` groups.
        """
        stack, seen = [self.root], 0
        while stack and seen < MAX_GROUPS:
            group, seen = stack.pop(), seen + 1
            yield group
            for name in self.members(group):
                if group.id.links.get_info(_raw(name)).type == h5py.h5l.TYPE_HARD:
                    child = group[name]
                    if isinstance(child, h5py.Group):
                        stack.append(child)

    def attribute(self, node: Any, name: str) -> Any:
        """Return the value of an attribute, or None where there is none.

        Raises
        ------
        FileFormatError
            It is larger than attributes are.
        """
        self._before(0)
        if name not in node.attrs:
            return None
        declared = node.attrs.get_id(name)
        shape = declared.shape or ()
        size = declared.get_storage_size()
        if math.prod(shape) > MAX_TEXTS or size > MAX_TEXT_BYTES:
            raise FileFormatError(
                f"{self.shown}: attribute {name!r} of {node.name!r} declares the shape {shape} and"
                f" {size} bytes; at most {MAX_TEXTS} values and {MAX_TEXT_BYTES} bytes are read"
            )
        return node.attrs[name]

    def numbers(self, dataset: Any) -> np.ndarray:
        """Return a data set of numbers as an array.

        Raises
        ------
        FileFormatError
            It is no data set of numbers, it is too large or declares more than is stored, or its
            values lie outside the folder of the file.
        """
        if (
            not isinstance(dataset, h5py.Dataset)
            or dataset.shape is None
            or (dataset.dtype.kind not in "fiu")
        ):
            raise FileFormatError(
                f"{self.shown}: {getattr(dataset, 'name', dataset)!r} holds no numbers"
            )
        if dataset.size > MAX_VALUES or dataset.size * dataset.dtype.itemsize > MAX_BYTES:
            raise FileFormatError(
                f"{self.shown}: {dataset.name!r} has the shape {dataset.shape}: too large, at most"
                f" {MAX_VALUES} values are read"
            )
        return np.asarray(self._read(dataset))

    def texts(self, dataset: Any) -> list[str]:
        """Return the texts in a data set of strings, of fixed or variable length.

        Raises
        ------
        FileFormatError
            It is no data set of strings, there are too many of them or too long ones, or they lie
            outside the folder of the file.
        """
        if not is_texts(dataset) or dataset.shape is None:
            raise FileFormatError(
                f"{self.shown}: {getattr(dataset, 'name', dataset)!r} holds no names"
            )
        if dataset.size > MAX_TEXTS or dataset.dtype.itemsize > MAX_TEXT_BYTES:
            raise FileFormatError(
                f"{self.shown}: {dataset.name!r} declares {dataset.size} names of"
                f" {dataset.dtype.itemsize} bytes; at most {MAX_TEXTS} of {MAX_TEXT_BYTES} are read"
            )
        return [as_text(raw).strip("\0 ") for raw in np.ravel(self._read(dataset))]

    def _read(self, dataset: h5py.Dataset) -> Any:
        self._before(0)
        self._check_places(dataset, _MAX_HOPS)
        self._check_stored(dataset)
        self._before(dataset.size)
        _load_filters(dataset)
        return dataset[()]

    def _find(self, where: str, start: Any, hops: int) -> Any:
        node = start.file["/"] if where.startswith("/") else start
        for name in where.split("/"):
            if name not in ("", "."):
                node = self._member(node, name, hops)
        return node

    def _member(self, group: Any, name: str, hops: int) -> Any:
        """Return a member of a group, links followed as far as they are allowed."""
        self._before(0)
        if not isinstance(group, h5py.Group) or not group.id.links.exists(_raw(name)):
            return None
        kind = group.id.links.get_info(_raw(name)).type
        if kind == h5py.h5l.TYPE_HARD:
            return group[name]
        if not hops:
            raise FileFormatError(f"{self.shown}: more than {_MAX_HOPS} links lead on from {name}")
        if kind == h5py.h5l.TYPE_SOFT:
            target = as_text(group.id.links.get_val(_raw(name)))
            return self._find(target, group, hops - 1)
        if kind != h5py.h5l.TYPE_EXTERNAL:
            raise FileFormatError(f"{self.shown}: {name!r} is a link of a kind that is not read")
        file, target = map(as_text, group.id.links.get_val(_raw(name)))
        return self._find(target, self._other(file, group), hops - 1)

    def _other(self, name: str, node: Any) -> h5py.File:
        """Return another file, to which `node` of this one or of another refers."""
        path = self._allowed(name, _folder_of(node))
        if path not in self._others:
            if len(self._others) >= MAX_FILES:
                raise FileFormatError(f"{self.shown}: refers to more than {MAX_FILES} other files")
            self._before(0)
            self._others[path] = h5py.File(path, "r")
        return self._others[path]

    def _allowed(self, name: str, folder: Path) -> Path:
        try:
            path = (folder / name).resolve()
            is_inside = not Path(name).is_absolute() and path.is_relative_to(self._folder)
            is_inside = is_inside or any(path.is_relative_to(root) for root in self._roots)
            is_there = path.is_file()
        except (ValueError, OSError, RuntimeError) as error:
            raise FileFormatError(f"{self.shown}: refers to {name!r}: {error}") from error
        if not is_inside:
            raise FileFormatError(
                f"{self.shown}: refers to {name!r}; other files are read only if they are named"
                " relative to the folder of this file and lie in it, or below a folder in"
                f" {ROOTS_VARIABLE}"
            )
        if not is_there:
            raise FileFormatError(f"{self.shown}: refers to {name!r}, which is no file")
        return path

    def _check_places(self, dataset: h5py.Dataset, hops: int) -> None:
        """Refuse values that lie in files outside the folder."""
        for name, *_ in dataset.external or ():
            # libhdf5 looks from the working directory, which is the folder of the main file.
            for folder in {self._folder, _folder_of(dataset)}:
                self._allowed(name, folder)
        if not dataset.is_virtual:
            return
        for source in dataset.virtual_sources():
            self._before(0)
            if "%" in source.file_name or "%" in source.dset_name or not hops:
                raise FileFormatError(
                    f"{self.shown}: {dataset.name!r} is a virtual data set of numbered or nested"
                    " files, which are not read"
                )
            same = source.file_name == "."
            start = dataset.file if same else self._other(source.file_name, dataset)
            found = self._find(source.dset_name, start["/"], hops - 1)
            if not isinstance(found, h5py.Dataset):
                raise FileFormatError(
                    f"{self.shown}: {dataset.name!r} is a virtual data set whose part"
                    f" {source.dset_name!r} is not there"
                )
            self._check_places(found, hops - 1)

    def _check_stored(self, dataset: h5py.Dataset) -> None:
        """Refuse what can't be in the bytes that are stored, before memory is taken for it."""
        declared = dataset.size * dataset.dtype.itemsize
        chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        elsewhere = bool(dataset.external) or dataset.is_virtual
        too_much = declared > stored * INFLATION + _HARMLESS_BYTES and not elsewhere
        if too_much or chunk > max(declared, _HARMLESS_BYTES):
            raise FileFormatError(
                f"{self.shown}: {dataset.name!r} declares the shape {dataset.shape} of"
                f" {dataset.dtype} in chunks of {chunk} bytes, and {stored} bytes are stored: not"
                " what a file can hold"
            )


def _load_filters(dataset: h5py.Dataset) -> None:
    """Load the filters that detectors compress with (LZ4, bitshuffle ...), where one is needed.

    Raises
    ------
    MissingExtraError
        hdf5plugin, which has them, is not installed.
    """
    how = dataset.id.get_create_plist()
    numbers = [how.get_filter(place)[0] for place in range(how.get_nfilters())]
    if all(number in _KNOWN_FILTERS for number in numbers):
        return
    try:
        import hdf5plugin  # noqa: F401 - its import registers the filters
    except ImportError as error:
        raise MissingExtraError(f"reading {dataset.name!r}", "files") from error


def is_texts(node: Any) -> bool:
    """Return whether a node of a file is a data set of strings."""
    return isinstance(node, h5py.Dataset) and (
        node.dtype.kind == "S" or h5py.check_string_dtype(node.dtype) is not None
    )


def is_numbers(node: Any) -> bool:
    """Return whether a node of a file is a data set of real numbers."""
    return isinstance(node, h5py.Dataset) and node.dtype.kind in "fiu"


def as_text(value: Any) -> str:
    """Return a text of a file, which is bytes or a string, as a string."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _raw(name: str) -> bytes:
    # As h5py does: a name that is not UTF-8 has become one with surrogates.
    return name.encode("utf-8", "surrogateescape")


def _folder_of(node: Any) -> Path:
    return Path(node.file.filename).parent
