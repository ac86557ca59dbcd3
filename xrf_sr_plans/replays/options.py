"""`ReplayOptions`: what is asked of stored runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from xrf_sr_plans.bulk.on_workers import model_checksum
from xrf_sr_plans.callbacks.result_run import package_versions
from xrf_sr_plans.config import AnalysisSettings, folder_flaw
from xrf_sr_plans.maps.files import FILE_READERS, ReadOptions
from xrf_sr_plans.maps.files.photons import LONGEST_DWELL_MS
from xrf_sr_plans.maps.readers.registry import READERS, RUN_READERS
from xrf_sr_plans.measurement import Factor, alternatives, not_allowed
from xrf_sr_plans.ranges import Range, check
from xrf_sr_plans.schema import AnalysisRequest, kind_of_run
from xrf_sr_plans.store.exports.formats import format_for

_DWELL_MS = Range(1e-6, LONGEST_DWELL_MS)


@dataclass(frozen=True)
class ReplayOptions:
    """What is asked of stored runs, and what is written of each."""

    settings: AnalysisSettings = field(default_factory=AnalysisSettings)
    """Settings of the analysis."""
    factor: Factor | None = None
    """Replaces what the runs themselves asked for; None: it doesn't."""
    find: str | None = None
    """Replaces what the runs themselves asked for; None: it doesn't."""
    reader: str | None = None
    """Name of the reader of files and of other people's runs; None: the first that recognises
    them."""
    dwell_ms: float | None = None
    """Time at each pixel of files and other people's runs, in ms; None: as they say."""
    known: ReadOptions = field(default_factory=ReadOptions)
    """What is known better than files and other people's runs say: the unit of their positions,
    elements to cut out of spectra, and data keys."""
    pictures: bool = True
    """Whether a picture of each map is written."""
    maps: bool = True
    """Whether each enhanced map is written to a file."""
    format: str = "nexus"
    """Layout of that file (`store.exports.FORMATS`)."""
    pairs: str | None = None
    """Folder of the pair store that pairs and rescans among the runs enter; None: nothing does."""

    @property
    def file_reader(self) -> str | None:
        """The reader of files that is meant; None: the first that recognises a file."""
        return self.reader if self.reader in [one.name for one in FILE_READERS] else None

    @property
    def run_reader(self) -> str | None:
        """The reader of runs that is meant; None: the first that recognises a run."""
        return self.reader if self.reader in [one.name for one in RUN_READERS] else None

    @property
    def known_of_files(self) -> ReadOptions:
        """What of it is said to files, which have no data keys."""
        return replace(self.known, channels=(), keys=(), root_map=())

    def check(self) -> None:
        """Refuse a reader or a format that isn't there, and a dwell that can't be.

        Raises
        ------
        ConfigError
            One of them is not allowed; the message says what is.
        """
        names = [one.name for one in READERS]
        wrong = self.reader is not None and self.reader not in names
        check(
            "replay",
            not_allowed("reader", self.reader, alternatives(names)) if wrong else "",
            "" if self.dwell_ms is None else _DWELL_MS.flaw("dwell_ms", self.dwell_ms),
        )
        format_for("", self.format)
        if self.pairs is not None:
            check("replay", folder_flaw("pairs", self.pairs))

    @property
    def for_replay(self) -> ReplayOptions:
        """The same, but nothing that is replayed joins the ledger or the pairs of live runs.

        Pairs enter the store `pairs`, where one is given. A cluster that live maps are sent to is
        not asked: where a unit is replayed is said beside the options, and a worker of a cluster
        that waited for another one would keep it from its work. Nor is the host on which live runs
        are analysed.
        """
        names = (
            *("ledger_dir", "log_file", "log_level", "log_format"),
            *("dask", "dask_keys", "worker_command"),
        )
        changed = {**dict.fromkeys(names), "pair_dir": self.pairs}
        return replace(self, settings=self.settings.model_copy(update=changed))

    @property
    def checksum(self) -> str:
        """Checksum of everything that a result depends on besides its run."""
        facts = [
            package_versions(),
            model_checksum(self.settings.model),
            self.for_replay.settings.model_dump(mode="json"),
            [self.factor, self.find, self.reader, self.dwell_ms, asdict(self.known)],
            [self.pictures, self.maps, self.format],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def request_of(self, start: Mapping[str, Any]) -> AnalysisRequest | None:
        """Return what a run is to be asked instead of what it asked itself; None: nothing else.

        Fine maps and halves of pairs, which are only assembled, stay so.

        Parameters
        ----------
        start
            Start document of a run.
        """
        changes = {"factor": self.factor, "find": self.find}
        changes = {name: value for name, value in changes.items() if value is not None}
        if not changes or kind_of_run(start) != "map":
            return None
        own = start["xrf_sr"].get("analysis")
        try:
            request = AnalysisRequest() if own is None else AnalysisRequest(**own)
        except (TypeError, ValidationError):
            return None  # the result of that run tells what is wrong with it
        return request.model_copy(update=changes) if request.enhance else None

    def analysed(self, start: Mapping[str, Any]) -> bool:
        """Return whether a map run is given to the analysis, be it only to be assembled."""
        return start["xrf_sr"].get("analysis") is not None or self.request_of(start) is not None

    def enhanced(self, start: Mapping[str, Any]) -> bool:
        """Return whether a map run is enhanced."""
        if self.request_of(start) is not None:
            return True
        own = start["xrf_sr"].get("analysis")
        return own is not None and (not isinstance(own, Mapping) or own.get("enhance", True))

    def recorded(self, start: Mapping[str, Any]) -> bool:
        """Return whether a map run is given to the analysis for the pair that it is part of."""
        purpose = start["xrf_sr"].get("purpose")
        return self.pairs is not None and purpose in ("pair_coarse", "pair_fine", "fine")

    def why_not_foreign(self, start: Mapping[str, Any]) -> str:
        """Return in words why a run of other people is not replayed, or ""."""
        if self.run_reader is not None:
            return ""
        known = next((one.name for one in RUN_READERS if one.matches(start, [])), "")
        if known == "scan":
            return "scans of other programs that are no grid scans"
        return "" if known else "of other programs, and no maps that a reader knows (--reader)"
