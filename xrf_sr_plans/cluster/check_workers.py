"""`check_workers`: whether the workers of a cluster run the same code as this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xrf_sr_plans.cluster.versions import mismatch, versions_here
from xrf_sr_plans.errors import ConfigError, in_words

if TYPE_CHECKING:
    from distributed import Client

VERSIONS = "xrf_sr_versions"
"""Under which name a worker that `xrf-sr cluster` started says its versions when it joins."""
ANSWER_TIMEOUT_S = 20.0
"""Longest wait for the workers' answers."""
_SHOWN = 3


def check_workers(client: Client, timeout_s: float = ANSWER_TIMEOUT_S) -> int:
    """Refuse a cluster without workers, or with one that runs other versions than this process.

    Parameters
    ----------
    client
        A client of the cluster.
    timeout_s
        Longest wait for the workers' answers.

    Returns
    -------
    int
        Number of workers.

    Raises
    ------
    ConfigError
        There is no worker, or one of them differs, lacks this package or doesn't answer.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise ConfigError("the cluster has no workers")
    flaws = worker_flaws(client, workers, timeout_s)
    if flaws:
        told = [f"worker {name}: {flaw}" for name, flaw in list(flaws.items())[:_SHOWN]]
        more = f"; and {len(flaws) - _SHOWN} more" if len(flaws) > _SHOWN else ""
        raise ConfigError("; ".join(told) + more)
    return len(workers)


def worker_flaws(
    client: Client, workers: Mapping[str, Mapping[str, Any]], timeout_s: float = ANSWER_TIMEOUT_S
) -> dict[str, str]:
    """Return what keeps each worker from doing our tasks, in words, by its name.

    Workers that `xrf-sr cluster` started have said their versions when they joined. Others are
    asked, all at once.

    Parameters
    ----------
    client
        A client of the cluster.
    workers
        What the scheduler knows of each worker, by its address.
    timeout_s
        Longest wait for the answers.
    """
    here = versions_here()
    told: dict[str, Any] = {address: known.get(VERSIONS) for address, known in workers.items()}
    silent = [address for address, versions in told.items() if not isinstance(versions, Mapping)]
    if silent:
        told |= _asked(client, silent, timeout_s)
    found = {}
    for address, answer in told.items():
        flaw = mismatch(here, answer) if isinstance(answer, Mapping) else str(answer)
        if flaw:
            name = workers[address].get("name")
            found[address if name is None else str(name)] = flaw
    return found


def _asked(client: Client, addresses: list[str], timeout_s: float) -> dict[str, Any]:
    """Return the versions of each worker, or a sentence that says why there are none."""
    try:
        # `callback_timeout` isn't for the function: it is how long Dask waits for all of it.
        answers: Any = client.run(
            versions_here, workers=addresses, on_error="return", callback_timeout=timeout_s
        )
    except TimeoutError:
        return dict.fromkeys(addresses, f"it or another one doesn't answer within {timeout_s:g} s")
    except (OSError, RuntimeError, ValueError) as error:
        return dict.fromkeys(addresses, f"it can't be asked: {in_words(error)}")
    return {
        address: answer if isinstance(answer, Mapping) else _refusal(answer)
        for address, answer in answers.items()
    }


def _refusal(answer: object) -> str:
    told = in_words(answer) if isinstance(answer, BaseException) else repr(answer)
    return f"it lacks a package: {told}" if "No module named" in told else told
