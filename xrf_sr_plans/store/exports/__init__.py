"""Maps as files that other programs open: NeXus, MAPS, PyXRF and OME-TIFF.

Each module writes one layout. All of them are given an `ExportedMap`, which is the same for
measured maps, enhanced ones and the composite map of a survey. `export_map` is the door to them.
"""

from xrf_sr_plans.store.exports.formats import FORMATS, export_map, format_for, new_file
from xrf_sr_plans.store.exports.runs import comparisons, export_runs
from xrf_sr_plans.store.exports.verification import write_verification

__all__ = [
    "FORMATS",
    "comparisons",
    "export_map",
    "export_runs",
    "format_for",
    "new_file",
    "write_verification",
]
