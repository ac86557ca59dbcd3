"""Files that documents refer to are read in a process of its own, which may crash or hang."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from support.foreign_runs import ROI_CHANNELS, assembled, assert_is, haven_run, srx_run
from support.waiting import running, until
from xrf_sr_plans.errors import AssemblyError, MissingExtraError
from xrf_sr_plans.maps.adapters import adapted, read_apart
from xrf_sr_plans.maps.adapters.assets import Hdf5Columns
from xrf_sr_plans.maps.files import child_process

pytest.importorskip("area_detector_handlers", reason="needs the extra 'documents'")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_process_is_left():
    read_apart._SPARE.end()
    yield
    read_apart._SPARE.end()


def processes() -> set[int]:
    """Return the processes that this one has started and that have not ended."""
    listed = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text()
    return {pid for pid in map(int, listed.split()) if running(pid)}


def read(documents: list) -> None:
    assert_is(assembled(adapted(documents, channels=ROI_CHANNELS)))


def test_one_process_reads_all_runs_and_ends_with_the_session(tmp_path: Path) -> None:
    read(srx_run(tmp_path))
    process = read_apart._SPARE._process
    assert process is not None
    read(haven_run(tmp_path))
    assert read_apart._SPARE._process is process
    # One that was ended meanwhile, as where memory ran out, is replaced.
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait(60)
    read(haven_run(tmp_path))
    another = read_apart._SPARE._process
    assert another is not None
    read_apart._SPARE.end()
    with pytest.raises(ProcessLookupError):
        os.kill(another._process.pid, 0)


def test_a_file_that_never_answers_costs_its_run_and_no_other(tmp_path, monkeypatch) -> None:
    # Long enough for a busy machine to read all other files.
    monkeypatch.setattr(read_apart, "STEP_S", 5.0)
    whole = srx_run(tmp_path)
    (tmp_path / "there").mkdir()
    documents = srx_run(tmp_path / "there")
    (tmp_path / "there" / "xs3.h5").unlink()
    os.mkfifo(tmp_path / "there" / "xs3.h5")
    says = r"stream 'stream0', data key 'fluor', the file .*/there/xs3.h5: can't be read, it has no"
    before = processes()
    with pytest.raises(AssemblyError, match=says):
        read(documents)
    until(lambda: processes() <= before)
    monkeypatch.setattr(read_apart, "STEP_S", 60.0)
    read(whole)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os; os.write(1, b'reading the file x.h5\\n'); os._exit(3)", "exit code 3"),
        ("import os; os.write(1, b'answer 100\\n'); os._exit(0)", "exit code 0"),
    ],
)
def test_a_library_that_crashes_is_an_error_of_ours(tmp_path, monkeypatch, code, says) -> None:
    monkeypatch.setattr(child_process, "_COMMAND", (sys.executable, "-c", code))
    with pytest.raises(AssemblyError, match=f"can't be read, it ended the process .*{says}"):
        read(srx_run(tmp_path))


def test_an_error_of_the_process_is_the_one_that_it_would_be_here(tmp_path, monkeypatch) -> None:
    documents = haven_run(tmp_path)
    (tmp_path / "xspress3.h5").unlink()
    with pytest.raises(AssemblyError, match=r"data key 'fluor': can't be read from .*xspress3.h5"):
        read(documents)
    error = read_apart._as_error("MissingExtraError", "reading x needs the extra 'documents'")
    assert isinstance(error, MissingExtraError)
    assert str(error) == "reading x needs the extra 'documents'"


def test_handlers_that_were_given_read_in_this_process(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(child_process, "_COMMAND", ("/nowhere/python",))
    documents = srx_run(tmp_path, spec="OURS")
    seen = []

    class Handler(Hdf5Columns):
        def __call__(self, column="entry/instrument/detector/data", **kwargs):
            seen.append(column)
            return super().__call__(column, **kwargs)

    names = ("OURS", "ZEBRA_HDF51", "SIS_HDF51")
    handlers = dict.fromkeys(names, Handler)
    assert_is(assembled(adapted(documents, channels=ROI_CHANNELS, handlers=handlers)))
    assert seen
    with pytest.raises(AssemblyError, match="can't be started"):
        read(documents)
