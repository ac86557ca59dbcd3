"""A run of another program, taken apart: its streams, their events and what they refer to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.well_formed import checked
from xrf_sr_plans.schema import Document

_ASSETS = ("resource", "datum", "datum_page")


@dataclass
class Stream:
    """One stream of a run.

    Parameters
    ----------
    name
        Name of the stream.
    descriptors
        Its descriptors by uid, in their order; later ones tell of a changed configuration.
    events
        Its events by ``seq_num``. Of two events with one number (a rewind) the later one counts.
    data
        The references to arrays outside of the documents (``stream_datum``), by the uid of their
        resource.
    arrays
        Arrays that the catalog which the run is from has of its data keys.
    """

    name: str
    descriptors: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    data: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How much is in it: of its events, references and arrays."""
        return len(self.events) + len(self.data) + len(self.arrays)

    @property
    def data_keys(self) -> dict[str, Mapping[str, Any]]:
        """What its descriptors say of each data key."""
        keys: dict[str, Mapping[str, Any]] = {}
        for descriptor in self.descriptors.values():
            keys |= descriptor["data_keys"]
        return keys

    @property
    def in_order(self) -> list[dict[str, Any]]:
        """Its events by their number."""
        return [self.events[number] for number in sorted(self.events)]

    def has(self, key: str) -> bool:
        """Return whether the stream has values of a data key, in its events or beside them."""
        return key in self.data_keys or any(key in one["data"] for one in self.events.values())


@dataclass
class ForeignRun:
    """All documents of one run.

    Parameters
    ----------
    start, stop
        Its start and stop document; the stop document is None where the run was cut off.
    streams
        Its streams by name.
    assets
        Documents of the kinds ``resource``, ``datum`` and ``datum_page``, in their order.
    stream_resources
        Documents of that kind by uid.
    notes
        What turned out to be odd about it while it was read.
    """

    start: Mapping[str, Any] = field(default_factory=dict)
    stop: Mapping[str, Any] | None = None
    streams: dict[str, Stream] = field(default_factory=dict)
    assets: list[Document] = field(default_factory=list)
    stream_resources: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def owner(self) -> str:
        """The run, as messages call it."""
        return f"run {self.start.get('uid')}"

    @property
    def scan(self) -> Mapping[str, Any]:
        """What NSLS-II's beamlines write about a scan; empty where there is nothing."""
        scan = self.start.get("scan")
        return scan if isinstance(scan, Mapping) else {}

    @property
    def plan_name(self) -> str:
        """Name of the plan; "" where there is none."""
        return str(self.start.get("plan_name") or "")

    def stream(self, wanted: str | None, *usual: str) -> Stream:
        """Return a stream by name.

        Parameters
        ----------
        wanted
            The name; None: the first of the usual ones that there is.
        usual
            Names that such runs give to the stream.

        Raises
        ------
        AssemblyError
            There is no such stream.
        """
        for name in (wanted,) if wanted else usual:
            if name in self.streams:
                return self.streams[name]
        sought = " or ".join(repr(name) for name in ((wanted,) if wanted else usual))
        there = ", ".join(repr(name) for name in self.streams) or "none"
        raise AssemblyError(f"{self.owner}: no stream {sought}; there is {there}")


def foreign_run(documents: Iterable[Document]) -> ForeignRun:
    """Return the documents of one run, taken apart.

    Raises
    ------
    AssemblyError
        A document lacks what every reader relies on.
    """
    run = ForeignRun()
    owners: dict[str, Stream] = {}
    for name, doc in checked(documents):
        if name == "start":
            run.start = doc
        elif name == "stop":
            run.stop = doc
        elif name == "descriptor":
            stream_name = str(doc.get("name") or "primary")
            stream = run.streams.setdefault(stream_name, Stream(stream_name))
            stream.descriptors[doc["uid"]] = doc
            owners[doc["uid"]] = stream
        elif name in ("event", "event_page"):
            stream = owners.get(doc["descriptor"])
            if stream is not None:
                stream.events |= {int(event["seq_num"]): event for event in _events(name, doc)}
        elif name in _ASSETS:
            run.assets.append((name, doc))
        elif name == "stream_resource":
            run.stream_resources[str(doc.get("uid"))] = doc
        elif name == "stream_datum":
            stream = owners.get(str(doc.get("descriptor")))
            if stream is not None:
                stream.data.setdefault(str(doc.get("stream_resource")), []).append(doc)
    return run


def listed(value: Any) -> list[Any]:
    """Return a list, tuple or one-dimensional array as a list; anything else as an empty one."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.ndim == 1 else []
    return list(value) if isinstance(value, list | tuple) else []


def _events(name: str, doc: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if name == "event":
        yield {**doc, "data": dict(doc["data"])}
        return
    for place in range(len(doc["seq_num"])):
        event = {key: doc[key][place] for key in ("uid", "seq_num", "time")}
        data = {key: values[place] for key, values in doc["data"].items()}
        yield {**event, "descriptor": doc["descriptor"], "data": data}
