"""Coarse and fine maps of the same areas, from which models of a beamline's own are made.

A folder holds the maps, each in a file that is named by what it contains, and a log to which
records are only ever added. What a pair is, which sample it belongs to and why it can't be learnt
from follow from the log.
"""

from xrf_sr_plans.store.pairs.pair_store import PairStore as PairStore
from xrf_sr_plans.store.pairs.stored_pair import MapOrigin as MapOrigin
from xrf_sr_plans.store.pairs.stored_pair import PairSource as PairSource
from xrf_sr_plans.store.pairs.stored_pair import Split as Split
from xrf_sr_plans.store.pairs.stored_pair import StoredMap as StoredMap
from xrf_sr_plans.store.pairs.stored_pair import StoredPair as StoredPair
