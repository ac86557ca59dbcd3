"""Map runs of other programs as row documents, so that the analysis can read them too.

An adapter is a generator from documents to documents. For example, ``replay(adapt_grid_scan(
documents(run), {"Fe": "xs_fe"}, dwell_ms=100))`` enhances a run that knows nothing of this package.
"""

from xrf_sr_plans.maps.adapters.grid_scan import adapt_grid_scan
from xrf_sr_plans.maps.adapters.row_events import adapt_row_events

__all__ = ["adapt_grid_scan", "adapt_row_events"]
