"""Whether what a session talks to is there: the model, the store, the queue server, the log."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from typing import Any

from xrf_sr_plans.checkup.findings import Finding
from xrf_sr_plans.checkup.worker import worker_elsewhere
from xrf_sr_plans.config import AnalysisSettings, QueueSettings, Settings, folder_flaw
from xrf_sr_plans.errors import XrfSrError, in_words
from xrf_sr_plans.queueing.client import connect_zmq

_PATIENCE_S = 60.0
"""Longest wait for one service."""


def service_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is to be said of everything that is no device."""
    if settings.analysis.worker_command is None:
        yield from _analysis_here(settings.analysis)
    else:
        yield _tried("analysis.worker_command", lambda: worker_elsewhere(settings.of_analysis))
    yield _tried("store.where", lambda: _store(settings.store.where))
    yield _tried("queue", lambda: _queue(settings.queue))
    yield _tried("log.file", lambda: _log(settings))


_PLACES = ("pair_dir", "result_dir", "ledger_dir")


def _analysis_here(settings: AnalysisSettings) -> Iterator[Finding]:
    yield _tried("analysis.model", lambda: _model(settings.model))
    yield _tried("analysis.device", lambda: _torch_device(settings.device))
    if settings.dask is not None:
        yield _tried("analysis.dask", lambda: _cluster(settings))
    places = {name: getattr(settings, name) for name in _PLACES}
    for name, place in places.items():
        look = _pairs if name == "pair_dir" else _folder
        if place is not None:
            yield _tried(f"analysis.{name}", lambda look=look, place=place: look(place))


def _tried(part: str, look: Callable[[], str]) -> Finding:
    """Return what a function finds, in a thread, so that nothing that hangs is waited for."""
    found: list[Finding] = []

    def run() -> None:
        try:
            text = look()
            state = "note" if text.startswith("note: ") else "ok"
            found.append(Finding(part, state, text.removeprefix("note: ")))
        except XrfSrError as error:
            found.append(Finding(part, "fails", str(error)))
        except Exception as error:  # noqa: BLE001 - clients of others raise whatever they like
            found.append(Finding(part, "fails", in_words(error)))

    thread = threading.Thread(target=run, name=f"xrf-sr-check-{part}", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return found[0] if found else Finding(part, "fails", f"no answer within {_PATIENCE_S:g} s")


def _pairs(folder: str) -> str:
    from xrf_sr_plans.store.pairs import PairStore

    said, known = _folder(folder), PairStore(folder).known_pairs()
    usable = sum(not pair.problem for pair in known)
    return f"{said}; {len(known)} pairs, {usable} of them can be learnt from" if known else said


def _model(model: str | None) -> str:
    from xrf_sr_plans.sr.registry import model_path, read_calibration, read_card

    path = model_path(model)
    card = read_card(path)
    read_calibration(path, card)
    return f"{card.name}, {path}"


def _torch_device(device: str | None) -> str:
    if importlib.util.find_spec("torch") is None:
        return "note: torch is not installed, so maps are made by bicubic interpolation"
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return f"{torch.zeros(1, device=device).device}"


def _cluster(settings: AnalysisSettings) -> str:
    from xrf_sr_plans.cluster.check_workers import check_workers
    from xrf_sr_plans.cluster.connection import address_of, connect

    where = address_of(settings)
    assert where is not None
    with connect(where) as client:
        return f"{where.address} answers, with {check_workers(client)} workers of the same versions"


def _folder(place: str) -> str:
    flaw = folder_flaw("the folder", place)
    if flaw:
        raise XrfSrError(flaw)
    return place


def _store(where: str | None) -> str:
    from xrf_sr_plans.store.run_store import open_store

    if where is None:
        return "not said: runs are kept in sessions with a console"
    store = open_store(where)
    if store is None:
        return "off: runs are not kept here"
    if store.is_local:
        return f"runs are kept in {store.where}"
    runs = store.catalog
    store.close(1.0)
    return f"{where} answers, with {len(runs)} runs"


def _queue(settings: QueueSettings | None) -> str:
    if settings is None:
        return 'none: rescan="queue" is refused'
    connect = connect_zmq(
        settings.control_address, settings.info_address, timeout_s=settings.request_timeout_s
    )
    client: Any = connect()
    try:
        status = client.status()
    except Exception as error:  # noqa: BLE001 - whatever the client raises, it doesn't answer
        return f"note: no queue server at {connect.address}: {in_words(error, 120)}"
    finally:
        client.close()
    return f"{connect.address}: the manager is {status.get('manager_state', 'there')}"


def _log(settings: Settings) -> str:
    settings.check_places()
    file = settings.log.file
    return "none" if file is None else f"{file}, {settings.log.level} and above"
