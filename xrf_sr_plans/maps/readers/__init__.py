"""One registry of everything that maps are read from: files of many kinds, and runs of documents.

``replay``, ``evaluate``, ``enhance``, ``train`` and ``pairs`` all ask it. Each reader has a name,
which ``--reader`` takes and errors mention, and a cheap test of what it reads.
"""

from xrf_sr_plans.maps.files import MapsFile, ReadOptions
from xrf_sr_plans.maps.readers.registry import (
    READERS,
    RUN_READERS,
    reader_of_file,
    reader_of_run,
    readers_in_words,
)
from xrf_sr_plans.maps.readers.roots import inside_roots
from xrf_sr_plans.maps.readers.run_map import map_of_run
from xrf_sr_plans.maps.readers.run_reader import RunReader
from xrf_sr_plans.maps.readers.source import monitor_of, placed_counts, read_map

__all__ = [
    "READERS",
    "RUN_READERS",
    "MapsFile",
    "ReadOptions",
    "RunReader",
    "inside_roots",
    "map_of_run",
    "monitor_of",
    "placed_counts",
    "read_map",
    "reader_of_file",
    "reader_of_run",
    "readers_in_words",
]
