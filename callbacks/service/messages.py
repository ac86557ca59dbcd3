"""What the RunEngine's process and the analysis process say to each other: one class per kind.

`ToWorker` and `FromWorker` are all that either side may say. `TO_WORKER` and `FROM_WORKER` turn
such messages into frames and back. A message crosses as a list: the name of its class, then the
values of its fields in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from xrf_sr_plans.callbacks.service.frames import pack
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import WorkerError, in_words
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.schema import Documents


@dataclass(frozen=True)
class Configure:
    """The first message to a worker: its settings, and whether anybody takes its documents."""

    settings: AnalysisSettings
    wants_results: bool
    wants_previews: bool
    fallback_reason: str = ""
    """Why the network must not be used, and maps become bicubic; empty: it is used."""
    scratch_dir: str = ""
    """Folder for what the next worker must know of this one; empty: there is none."""
    scratch_name: str = ""
    """Name of such a folder on the worker's host; empty: that is the session's host, too."""


@dataclass(frozen=True)
class RunDocument:
    """A document of a run that is to be analysed, numbered through over all runs."""

    number: int
    run: str
    name: str
    doc: Mapping[str, Any]


@dataclass(frozen=True)
class ForgetRun:
    """Skip what has not been done of a run, since its result is not needed any more.

    `number` is that of the last document sent before. The worker acknowledges it in its turn.
    """

    run: str
    number: int


@dataclass(frozen=True)
class Close:
    """Finish what came before this message, then end."""


@dataclass(frozen=True)
class Ready:
    """The worker has loaded what it needs and begins to take documents."""

    pid: int
    trouble: str = ""
    """What of the settings is not as it should be on its host; empty: nothing."""


@dataclass(frozen=True)
class Acknowledge:
    """All documents up to this number have been dealt with."""

    number: int


@dataclass(frozen=True)
class RunSummary:
    """The outcome of one run, which a plan may be waiting for; its result run has been said."""

    summary: AnalysisSummary


@dataclass(frozen=True)
class ResultDocument:
    """One document of the result runs that follow from a run; a result run counts once whole."""

    run: str
    name: str
    doc: dict[str, Any]


@dataclass(frozen=True)
class Preview:
    """A whole result run of a map that is still being flown."""

    documents: Documents


@dataclass(frozen=True)
class RunDone:
    """Everything that follows from a run has been said."""

    run: str


ToWorker = Configure | RunDocument | ForgetRun | Close
FromWorker = Ready | Acknowledge | RunSummary | ResultDocument | Preview | RunDone

Message = TypeVar("Message")


class MessageCodec(Generic[Message]):
    """Turn the messages of one direction into frames and back.

    Parameters
    ----------
    kinds
        The dataclasses that may be sent in this direction.
    """

    def __init__(self, kinds: Iterable[type[Message]]) -> None:
        self._field_types = {kind: _field_types(kind) for kind in kinds}
        self._kinds = {kind.__name__: kind for kind in self._field_types}

    def encode(self, message: Message) -> bytes:
        """Return a message as one frame."""
        kind = type(message)
        values = (_simplified(getattr(message, name)) for name in self._field_types[kind])
        return pack([kind.__name__, *values])

    def decode(self, content: Any) -> Message:
        """Return the message that a frame holds, from the frame's unpacked content.

        Raises
        ------
        WorkerError
            The content is no list with a kind, or the kind is unknown in this direction, or the
            fields are not those of that kind.
        """
        name, *values = content if isinstance(content, list) and content else [content]
        kind = self._kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise WorkerError(
                f"a message of unknown kind {name!r:.80}; the kinds are "
                + ", ".join(sorted(self._kinds))
            )
        wanted = self._field_types[kind]
        try:
            if len(values) != len(wanted):
                raise ValueError(f"{len(values)} fields instead of {len(wanted)}")
            return kind(*map(_typed, wanted.items(), values))
        except (TypeError, ValueError, KeyError) as error:
            raise WorkerError(f"a malformed message of kind {name!r}: {in_words(error)}") from error


def _field_types(kind: type) -> dict[str, type]:
    hints = get_type_hints(kind)
    return {one.name: get_origin(hints[one.name]) or hints[one.name] for one in fields(kind)}


def _simplified(value: Any) -> Any:
    """Return the value of a field as what frames carry."""
    if isinstance(value, AnalysisSettings):
        return value.of_worker.model_dump()
    if isinstance(value, AnalysisSummary):
        # The one place where regions become dictionaries on their way between the processes.
        return asdict(value)
    return value


def _typed(field: tuple[str, type], value: Any) -> Any:
    """Return the value of a field as its class declares it; the inverse of `_simplified`."""
    name, wanted = field
    if wanted is AnalysisSettings:
        return AnalysisSettings(**value)
    if wanted is AnalysisSummary:
        return _summary(value)
    if not isinstance(value, wanted):
        raise TypeError(f"{name} is {value!r:.80}, no {wanted.__name__}")
    # Pairs of a name and a document, whose tuples arrive as lists.
    return [(name, doc) for name, doc in value] if wanted is list else value


def _summary(plain: Mapping[str, Any]) -> AnalysisSummary:
    return AnalysisSummary(
        **{**plain, "regions": tuple(Region.from_dict(region) for region in plain["regions"])}
    )


TO_WORKER: MessageCodec[ToWorker] = MessageCodec(get_args(ToWorker))
FROM_WORKER: MessageCodec[FromWorker] = MessageCodec(get_args(FromWorker))
