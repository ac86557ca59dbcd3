"""`ModelVersions`: the models of a beamline, of which one is in use, in a folder.

Each version has a folder of its own, ``versions/0003``, with weights, card, calibration, trust
boundary and the report that it was promoted by; it is never changed. ``current.json`` says which is
in use. It is replaced as a whole, so at whatever moment a process is killed either the one or the
other version is in use. ``history.jsonl`` has a line for each change, and is only ever added to.

A model is chosen by the folder with ``registry:FOLDER`` wherever the name of a model is taken.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xrf_sr_plans.errors import ModelError, in_words
from xrf_sr_plans.sr.model_files import read_sealed, write_sealed

logger = logging.getLogger(__name__)

PREFIX = "registry:"
"""What the name of a model begins with that is the current one of a folder."""
Action = Literal["begun", "promoted", "rolled back"]
_CURRENT, _HISTORY, _LOCK, _VERSIONS = "current.json", "history.jsonl", ".lock", "versions"
_REPORT = "report.json"
_NUMBERED = re.compile(r"-(\d{4,})$")
_SUFFIXES = (".safetensors", ".json", ".calibration.json", ".trust.json")
_PATIENCE_S = 30.0


class Change(BaseModel):
    """A change of the model in use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(ge=1)
    """Changes are numbered from 1."""
    time: float
    """When it was, in seconds since 1970."""
    action: Action
    version: str
    """The version in use from then on."""
    name: str
    """Name of its model."""
    sha256: str
    before: str = ""
    """The version that was in use until then; empty for the first one."""
    reason: str = ""


class ModelVersions:
    """The versions of a folder.

    Parameters
    ----------
    folder
        Folder of the versions.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    @property
    def begun(self) -> bool:
        """Whether there is a model in use."""
        return (self.folder / _CURRENT).exists()

    def current(self) -> Change:
        """Return the latest change, which says the version in use.

        Raises
        ------
        ModelError
            The folder has no models, or what says which is in use is damaged.
        """
        file = self.folder / _CURRENT
        if not file.exists():
            raise ModelError(
                f"{self.folder}: has no models; xrf-sr models init puts a first one there, and"
                " so does xrf-sr learn"
            )
        try:
            return Change.model_validate(read_sealed(file, "choice of a model"))
        except ValidationError as error:
            raise ModelError(f"{file}: not a choice of a model: {in_words(error)}") from error

    def path(self, version: str | None = None) -> Path:
        """Return the weights of a version; None: of the one in use.

        Raises
        ------
        ModelError
            There is no such version, or no model at all.
        """
        name = self.current().version if version is None else version
        files = []
        if re.fullmatch(r"\d{4,}", name):
            files = sorted((self.folder / _VERSIONS / name).glob("*.safetensors"))
        if len(files) != 1:
            raise ModelError(
                f"{self.folder}: no version {name!r}; there are {', '.join(self.versions())}"
            )
        return files[0]

    def versions(self) -> list[str]:
        """Return the names of all versions, oldest first."""
        found = (self.folder / _VERSIONS).glob("*")
        return sorted((p.name for p in found if p.name.isdigit()), key=int)

    def report(self, version: str) -> dict[str, Any]:
        """Return the report that a version came with; {} where it came with none.

        Raises
        ------
        ModelError
            It is damaged.
        """
        file = self.path(version).parent / _REPORT
        return read_sealed(file, "report") if file.exists() else {}

    def history(self) -> list[Change]:
        """Return all changes, oldest first; damaged lines are told in the log and left out."""
        changes: dict[int, Change] = {}
        file = self.folder / _HISTORY
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        for line in lines:
            try:
                change = Change.model_validate_json(line)
            except ValidationError:
                logger.warning("%s: a line is damaged: %.60s", file, line)
                continue
            changes[change.number] = change
        if self.begun:
            # Written before the line: a process may have been killed in between.
            last = self.current()
            changes.setdefault(last.number, last)
        return [changes[number] for number in sorted(changes)]

    def begin(self, weights: Path) -> Change:
        """Put a model into use, unless there is one already, and return what is in use.

        Raises
        ------
        ModelError
            The model is damaged.
        OSError
            The folder can't be written to.
        """
        with self._locked():
            if self.begun:
                return self.current()
            version = self._add(weights, {}, rename=False)
            return self._change("begun", version, "the first one")

    def add(self, weights: Path, report: Mapping[str, Any]) -> str:
        """Copy a model with all that belongs to it into a new version, and return its name.

        It isn't in use by that. Its name gets the number of the version, so that results tell
        which it was.

        Raises
        ------
        ModelError
            The model is damaged.
        OSError
            The disk is full, or the folder can't be written to.
        """
        with self._locked():
            return self._add(weights, report, rename=True)

    def promote(self, version: str, reason: str = "") -> Change:
        """Put a version into use.

        Raises
        ------
        ModelError
            There is no such version, or it is damaged.
        OSError
            The disk is full, or the folder can't be written to.
        """
        with self._locked():
            return self._change("promoted", version, reason)

    def rollback(self, reason: str = "") -> Change:
        """Put the version into use again that was in use before this one.

        Raises
        ------
        ModelError
            No version was in use before.
        OSError
            The disk is full, or the folder can't be written to.
        """
        with self._locked():
            return self._change("rolled back", self._before(), reason)

    def _before(self) -> str:
        """Return the version that rolling back leads to.

        Rolled back twice, it is the one before the one before.
        """
        stack: list[str] = []
        for change in self.history():
            if change.action == "rolled back":
                while stack and stack[-1] != change.version:
                    stack.pop()
            else:
                stack.append(change.version)
        earlier = [version for version in stack[:-1] if version != stack[-1]]
        if not earlier:
            raise ModelError(f"{self.folder}: no version was in use before this one")
        return earlier[-1]

    def _add(self, weights: Path, report: Mapping[str, Any], *, rename: bool) -> str:
        from xrf_sr_plans.sr.registry import load_model, read_card, write_card

        load_model(weights)
        card = read_card(weights)
        number = 1 + max((int(name) for name in self.versions()), default=0)
        version = f"{number:04d}"
        name = f"{_NUMBERED.sub('', card.name)}-{version}" if rename else card.name
        home = self.folder / _VERSIONS
        part = home / f".{version}.{os.getpid()}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            for suffix in _SUFFIXES:
                source = weights.with_suffix(suffix)
                if source.exists():
                    shutil.copyfile(source, part / f"{name}{suffix}")
            write_card(part / f"{name}.safetensors", card.model_copy(update={"name": name}))
            if report:
                write_sealed(part / _REPORT, report)
            for file in part.iterdir():
                _sync(file)
            _sync(part)
            os.replace(part, home / version)
            _sync(home)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return version

    def _change(self, action: Action, version: str, reason: str) -> Change:
        from xrf_sr_plans.sr.registry import load_model

        # Whatever is put into use is whole.
        card, _, _ = load_model(self.path(version))
        before = self.current() if self.begun else None
        change = Change(
            number=1 if before is None else before.number + 1,
            time=time.time(),
            action=action,
            version=version,
            name=card.name,
            sha256=card.sha256,
            before="" if before is None else before.version,
            reason=reason,
        )
        self._complete_history()
        write_sealed(self.folder / _CURRENT, change.model_dump(mode="json"))
        _sync(self.folder / _CURRENT)
        _sync(self.folder)
        self._complete_history()
        return change

    def _complete_history(self) -> None:
        """Add the line of the latest change, if it isn't there."""
        if not self.begun:
            return
        file = self.folder / _HISTORY
        last = self.current()
        text = file.read_text(errors="replace") if file.exists() else ""
        written = set()
        for line in text.splitlines():
            try:
                written.add(json.loads(line)["number"])
            except (ValueError, KeyError, TypeError):
                continue
        if last.number not in written:
            with file.open("a") as history:
                torn = "\n" if text and not text.endswith("\n") else ""
                history.write(f"{torn}{last.model_dump_json()}\n")
                history.flush()
                os.fsync(history.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from changing anything meanwhile.

        Raises
        ------
        ModelError
            Somebody else does, for longer than half a minute.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _PATIENCE_S
        with (self.folder / _LOCK).open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ModelError(
                            f"{self.folder}: another process has been changing it for"
                            f" {_PATIENCE_S:g} s"
                        ) from None
                    time.sleep(0.05)
            yield


def _sync(path: Path) -> None:
    """Have a file or a folder on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def registry_of(model: str | Path | None) -> ModelVersions | None:
    """Return the versions that the name of a model stands for, or None where it is another."""
    text = "" if model is None else str(model)
    return ModelVersions(text[len(PREFIX) :]) if text.startswith(PREFIX) else None
