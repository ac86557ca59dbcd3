"""What crosses between the processes is one of a few kinds, or it is refused by name."""

from __future__ import annotations

import sys
import threading
from typing import Any, get_args

import numpy as np
import pytest

from xrf_sr_plans.callbacks.service import messages
from xrf_sr_plans.callbacks.service.frames import pack, unpack_frame
from xrf_sr_plans.callbacks.service.greeting import OWN
from xrf_sr_plans.callbacks.service.messages import (
    FROM_WORKER,
    TO_WORKER,
    Acknowledge,
    Close,
    Configure,
    ForgetRun,
    FromWorker,
    MessageCodec,
    Preview,
    Ready,
    ResultDocument,
    RunDocument,
    RunDone,
    RunSummary,
    ToWorker,
)
from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import WorkerError
from xrf_sr_plans.maps.region import Region

REGION = Region(
    0.0, 1.5, -2.0, 3.0, ("Fe", "Zn"), 0.7, "bright", "run", model_sha256="ab", stage={"z": 1.0},
    predicted_sigma=0.25, trusted_fraction=1.0,
)  # fmt: skip
SUMMARY = AnalysisSummary(
    "run",
    "result",
    "done",
    "a path \udce4",
    (REGION, REGION),
    {"name": "m"},
    "d",
    0.5,
)
TOLD = [
    Configure(
        AnalysisSettings(device="cpu", threads=3), True, False, "late", "/tmp/scratch", "name"
    ),
    RunDocument(7, "run", "event", {"uid": "e", "data": {"row": 1}, 3: "an odd key"}),
    ForgetRun("run", 7),
    Close(),
]
SAID = [
    Ready(4711, "no such folder"),
    Acknowledge(12),
    RunSummary(SUMMARY),
    ResultDocument("run", "stop", {"uid": "s"}),
    Preview([("start", {"uid": "p"}), ("stop", {"run_start": "p"})]),
    RunDone("run"),
]


def there_and_back(codec: MessageCodec[Any], message: Any) -> Any:
    return codec.decode(unpack_frame(codec.encode(message)))


@pytest.mark.parametrize("message", TOLD, ids=lambda message: type(message).__name__)
def test_what_a_worker_is_told_arrives_as_it_was(message: ToWorker) -> None:
    assert there_and_back(TO_WORKER, message) == message


@pytest.mark.parametrize("message", SAID, ids=lambda message: type(message).__name__)
def test_what_a_worker_says_arrives_as_it_was(message: FromWorker) -> None:
    assert there_and_back(FROM_WORKER, message) == message


def test_every_kind_is_among_these() -> None:
    assert {type(message) for message in TOLD} == set(get_args(ToWorker))
    assert {type(message) for message in SAID} == set(get_args(FromWorker))


def test_arrays_in_a_document_cross_bit_for_bit() -> None:
    maps = np.array([[np.nan, -0.0, 1e-300]])
    back = there_and_back(FROM_WORKER, ResultDocument("run", "event", {"data": {"sigma": maps}}))
    assert back.doc["data"]["sigma"].tobytes() == maps.tobytes()


@pytest.mark.parametrize("content", [["Nonsense", 1], [], None, {"Ready": 1}, [["Ready"], 1], 3])
def test_an_unknown_kind_is_refused_with_those_there_are(content: Any) -> None:
    with pytest.raises(WorkerError, match=r"kind.*Acknowledge, Preview, Ready"):
        FROM_WORKER.decode(content)


@pytest.mark.parametrize("message", TOLD, ids=lambda message: type(message).__name__)
def test_a_message_in_the_wrong_direction_is_refused(message: ToWorker) -> None:
    with pytest.raises(WorkerError, match=type(message).__name__):
        FROM_WORKER.decode(unpack_frame(TO_WORKER.encode(message)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (["Ready"], "'Ready': ValueError: 0 fields instead of 2"),
        (["Ready", 1], "'Ready': ValueError: 1 fields instead of 2"),
        (["Acknowledge", "many"], "'Acknowledge': TypeError: number is 'many', no int"),
        (
            ["ResultDocument", "run", "event", None],
            "'ResultDocument': TypeError: doc is None, no dict",
        ),
        (["Preview", [1]], "'Preview'"),
        (["RunSummary", None], "'RunSummary'"),
        (["RunSummary", {"regions": []}], "'RunSummary'"),
        (["RunSummary", {"regions": [{"x_low_um": 1}]}], "'RunSummary': GridError: not a Region"),
    ],
)
def test_a_malformed_message_is_refused_by_its_kind(content: list[Any], words: str) -> None:
    with pytest.raises(WorkerError, match=words):
        FROM_WORKER.decode(content)


def test_unknown_settings_are_refused_by_the_kind_of_their_message() -> None:
    with pytest.raises(WorkerError, match=r"'Configure'.*no_such_setting"):
        TO_WORKER.decode(["Configure", {"no_such_setting": 1}, True, True, "", "", ""])


def test_a_worker_that_talks_nonsense_is_heard_on(caplog: pytest.LogCaptureFixture) -> None:
    said = OWN.line() + pack(["Nonsense"]) + pack(["Ready"]) + FROM_WORKER.encode(Ready(1))
    heard: list[FromWorker | None] = []
    ended = threading.Event()

    def hear(worker: WorkerProcess, message: FromWorker | None) -> None:
        heard.append(message)
        if message is None:
            ended.set()

    script = f"import sys; sys.stdout.buffer.write({said!r})"
    process = WorkerProcess(AnalysisSettings(), hear, [sys.executable, "-c", script])
    assert ended.wait(60)
    process.end(10)
    assert heard == [Ready(1), None]
    assert "'Nonsense'" in caplog.text
    assert "malformed message of kind 'Ready'" in caplog.text


def test_messages_are_frozen_and_say_what_they_are() -> None:
    for kind in (*get_args(ToWorker), *get_args(FromWorker)):
        assert kind.__doc__
        assert kind.__module__ == messages.__name__
        assert kind.__dataclass_params__.frozen
