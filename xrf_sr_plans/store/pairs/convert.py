"""`convert_older`: a store of the pairs that an earlier version of this package kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.store.pairs.complete import complete
from xrf_sr_plans.store.pairs.map_file import FOLDER, sync_folder
from xrf_sr_plans.store.pairs.older import has_older, older_pairs
from xrf_sr_plans.store.pairs.pair_log import NAME
from xrf_sr_plans.store.pairs.pair_store import PairStore


def convert_older(folder: Path, sample: str = "") -> int:
    """Make a folder of pairs that have no log a store, and return how many pairs it has.

    The pairs are registered and judged anew. Their old files stay, and nothing reads them any more.

    Parameters
    ----------
    folder
        The folder.
    sample
        Name of the sample of all of them, which is not in the old files.

    Raises
    ------
    ConfigError
        There are no such pairs, or the folder is a store already.
    FileFormatError
        A file is damaged. The message names it, and nothing was converted.
    OSError
        The disk is full, or writing is not permitted.
    """
    if not has_older(folder):
        raise ConfigError(f"{folder}: holds no pairs of an earlier version that are no store yet")
    with tempfile.TemporaryDirectory(prefix=".converted-", dir=folder) as made:
        store = PairStore(made)
        for uid, maps in older_pairs(folder):
            for stored in maps:
                store.save_map(uid, stored.position, stored.factor, stored.maps)
            complete(store, uid, sample=sample)
        (folder / FOLDER).mkdir(exist_ok=True)
        for path in (store.folder / FOLDER).iterdir():
            path.replace(folder / FOLDER / path.name)
        sync_folder(folder / FOLDER)
        # The log comes last: it is what makes the folder a store.
        (store.folder / NAME).replace(folder / NAME)
        sync_folder(folder)
    return len(PairStore(folder).known_pairs())
