"""How predictions compared with what was measured afterwards, in NeXus files.

Each line of the table is one element of one fine map. The columns are arrays in an NXdata group,
whose plot is the share of the measured pixels that lie inside the predicted 90 % interval. A
trustworthy model has about 0.90 in every line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.store.exports.nexus_parts import new_entry, text_array, write_note
from xrf_sr_plans.store.exports.whole_file import whole_hdf5

if TYPE_CHECKING:
    import h5py

SIGNAL = "coverage_90"
_TEXTS = ("element", "fine_uid")
_DECIBEL = "_db"


def write_verification(
    rows: Sequence[Mapping[str, Any]], path: Path | str, facts: Mapping[str, Any] | None = None
) -> Path:
    """Save the comparisons of fine maps with what had been predicted there as a NeXus file.

    An existing file is replaced, and no half-written file is ever seen under the name `path`.

    Parameters
    ----------
    rows
        One comparison each: the fields of an `Agreement` and, where there are several fine maps,
        ``fine_uid``. `comparisons` finds them in documents.
    path
        File name. The folder must exist.
    facts
        What else is known, such as the start document of the verification run.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    AssemblyError
        There is no comparison.
    OSError
        The file can't be written.
    """
    if not rows:
        raise AssemblyError(f"{path}: nothing was compared, so there is nothing to write")
    title = "predictions compared with what was measured"
    with whole_hdf5(path) as file:
        entry = new_entry(file, Path(path).name, title, default="verification")
        write_table(entry, rows)
        if facts:
            text = json.dumps(dict(facts), default=str)
            write_note(entry, "verification_run", "application/json", text)
    return Path(path)


def write_table(entry: h5py.Group, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write comparisons into an entry, as its NXdata group ``verification``."""
    group = entry.create_group("verification")
    group.attrs.update(
        {
            "NX_class": "NXdata",
            "signal": SIGNAL,
            "axes": ["comparison"],
            "title": "share of measured pixels inside the predicted 90 % interval",
        }
    )
    group["comparison"] = np.arange(1, len(rows) + 1)
    for name in rows[0]:
        column = [row.get(name) for row in rows]
        if name in _TEXTS or any(isinstance(value, str) for value in column):
            group[name] = text_array(column)
            continue
        stored = group.create_dataset(
            name, data=np.array([np.nan if value is None else value for value in column], float)
        )
        if name.endswith(_DECIBEL):
            stored.attrs["units"] = "dB"
