"""`learn`: all that makes a better model of a store of pairs, unattended.

Train, calibrate, compare with the model in use, and put the candidate into use if it is better and
nowhere worse. A learning that was killed goes on where it was; one that came to an end isn't begun
again until the store has other pairs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xrf_sr_plans.errors import ConfigError, ModelError
from xrf_sr_plans.learning.stored_areas import Lessons, lessons_of
from xrf_sr_plans.sr.model_files import read_sealed, write_sealed
from xrf_sr_plans.sr.model_versions import ModelVersions
from xrf_sr_plans.sr.registry import model_path, read_card
from xrf_sr_plans.store.pairs import PairStore

logger = logging.getLogger(__name__)

Outcome = Literal["promoted", "not better", "nothing new", "too few pairs", "busy"]
EXIT_CODES: dict[Outcome, int] = {
    "promoted": 0,
    "nothing new": 0,
    "not better": 10,
    "too few pairs": 11,
    "busy": 12,
}
"""Exit code of ``xrf-sr learn`` for each outcome; errors have 2, as everywhere."""
_WORK, _LAST, _LOCK = "learning", "last.json", "lock"
_IOPRIO_SET, _IDLE_CLASS = 251, 3 << 13


@dataclass(frozen=True)
class Learned:
    """What came of a learning.

    Parameters
    ----------
    outcome
        In a word; see `EXIT_CODES`.
    words
        What a user is to know, in lines.
    version
        The version in use now; empty where there is none.
    report
        Figures of both models (`learning.compare_models.Comparison`); {} where none were compared.
    """

    outcome: Outcome
    words: tuple[str, ...]
    version: str = ""
    report: dict[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of the command."""
        return EXIT_CODES[self.outcome]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            "outcome": self.outcome,
            "words": list(self.words),
            "version": self.version,
            "report": self.report or {},
        }


def learn(
    pairs: str | Path,
    registry: str | Path,
    *,
    start: str | None = None,
    changes: dict[str, Any] | None = None,
    effort: Any = None,
    again: bool = False,
    progress: Callable[[str], None] = lambda what: None,
) -> Learned:
    """Learn from a store of pairs, and put the model into use if it is better.

    Parameters
    ----------
    pairs
        Folder of the pair store.
    registry
        Folder of the models (`sr.model_versions`).
    start
        The model in use where the folder has none yet; None: the default one.
    changes
        Settings of the training (`LearningSettings`) by name.
    effort
        `learning.compare_models.Effort` of the comparison; None: the usual one.
    again
        Learn although nothing has changed since the last time.
    progress
        Called with what is done next.

    Raises
    ------
    ConfigError
        A setting is unknown or not allowed, or the folder of pairs isn't there.
    FileFormatError
        The log of the store is damaged.
    ModelError
        The model in use is damaged.
    OSError
        The disk is full, or a folder can't be written to.
    """
    if not Path(pairs).is_dir():
        raise ConfigError(f"pairs: there is no folder {pairs}")
    versions = ModelVersions(registry)
    work = versions.folder / _WORK
    work.mkdir(parents=True, exist_ok=True)
    with _alone(work / _LOCK) as alone:
        if not alone:
            return Learned("busy", (f"another process is learning in {versions.folder}",))
        begun = versions.begin(model_path(start))
        store = PairStore(pairs)
        key = {
            "pairs": str(Path(pairs).absolute()),
            "version": store.version,
            "in use": begun.sha256,
            "changes": json.loads(json.dumps(changes or {}, default=str)),
        }
        if not again and _last(work) == key:
            words = "nothing has changed since the last learning", _in_use(versions)
            return Learned("nothing new", words, versions.current().version)
        progress("reading pairs")
        lessons = lessons_of(store)
        if not (lessons.learn and lessons.held_out):
            return _nothing_to_learn(lessons, versions)
        done = _learn(lessons, versions, work, key, changes or {}, effort, progress)
        # What is in use now is what the next learning begins with.
        write_sealed(work / _LAST, key | {"in use": versions.current().sha256})
        shutil.rmtree(work / "run", ignore_errors=True)
        return done


def _learn(
    lessons: Lessons,
    versions: ModelVersions,
    work: Path,
    key: dict[str, Any],
    changes: dict[str, Any],
    effort: Any,
    progress: Callable[[str], None],
) -> Learned:
    from pydantic import ValidationError

    from xrf_sr_plans.learning.compare_models import compare_models
    from xrf_sr_plans.learning.train_on_pairs import LearningSettings, train_on_pairs

    in_use = versions.path()
    asked = changes | {"pairs": key["pairs"], "out": work / "run", "start": str(in_use)}
    try:
        settings = LearningSettings.model_validate(asked)
    except ValidationError as error:
        raise ConfigError(f"settings of the learning: {error}") from error
    progress(f"training, from {len(lessons.learn)} coarse maps")
    candidate = train_on_pairs(settings, lessons)
    comparison = compare_models(
        candidate, in_use, lessons.held_out, effort=effort, progress=_comparing(progress)
    )
    report = comparison.to_dict() | {
        "pairs": key["version"],
        "held out": "parts of the areas that were learnt from" if lessons.by_area else "samples",
        "left out": {one.name: one.reason for one in lessons.left_out},
        "training": read_card(candidate).training,
    }
    words = [_held_out_in_words(lessons), comparison.gain.in_words()]
    if not comparison.promotes:
        words += [*comparison.reasons, _in_use(versions)]
        return Learned("not better", tuple(words), versions.current().version, report)
    version = versions.add(candidate, report)
    versions.promote(version, comparison.gain.in_words())
    return Learned("promoted", (*words, _in_use(versions)), version, report)


def _comparing(progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda what: progress(f"comparing both models on {what}")


def _held_out_in_words(lessons: Lessons) -> str:
    count = f"{len(lessons.held_out)} coarse maps"
    if lessons.by_area:
        return (
            f"judged by parts of the areas that were learnt from ({count}): no sample is held out"
        )
    samples = sorted({area.sample for area in lessons.held_out})
    return f"judged by {count} of samples that were not learnt from: {', '.join(samples)}"


def _in_use(versions: ModelVersions) -> str:
    current = versions.current()
    return f"in use: version {current.version}, {current.name}"


def _nothing_to_learn(lessons: Lessons, versions: ModelVersions) -> Learned:
    what = "learn from" if not lessons.learn else "judge by"
    words = [f"no usable pair to {what}, of {len(lessons.pairs) + len(lessons.left_out)} in all"]
    words += [f"{one.name}: {one.reason}" for one in lessons.left_out[:10]]
    if len(lessons.left_out) > 10:
        words.append(f"and {len(lessons.left_out) - 10} more")
    words.append(_in_use(versions))
    return Learned("too few pairs", tuple(words), versions.current().version)


def _last(work: Path) -> dict[str, Any]:
    """Return what was learnt from the last time; {} where that isn't known."""
    file = work / _LAST
    if not file.exists():
        return {}
    try:
        return read_sealed(file, "record of a learning")
    except ModelError as error:
        logger.warning("%s; learning anew", error)
        return {}


@contextmanager
def _alone(file: Path) -> Iterator[bool]:
    """Give whether nobody else is learning here; nobody else can meanwhile.

    The lock is the kernel's, so it ends with this process, however that ends.
    """
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def step_back() -> None:
    """Give this process the lowest priority for processor, disk and memory.

    A survey beside it then goes on as if it weren't there.
    """
    started = time.monotonic()
    with contextlib.suppress(OSError):
        os.nice(19)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("800")
        if os.uname().machine == "x86_64":
            # Idle class: the disk is used when nobody else uses it. glibc has no function for it.
            ctypes.CDLL(None).syscall(_IOPRIO_SET, 1, 0, _IDLE_CLASS)
    logger.debug("lowest priority after %.3f s", time.monotonic() - started)
