"""`bind_plans`: the plans as a user types them, with the beamline filled in."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Generator, Sequence
from typing import Any

from bluesky import preprocessors as bpp

from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.plans.approved import rescan_approved
from xrf_sr_plans.plans.arguments import checked_arguments
from xrf_sr_plans.plans.collect import collect_pairs
from xrf_sr_plans.plans.pair import acquire_pair
from xrf_sr_plans.plans.queue_annotations import checked_at_submission
from xrf_sr_plans.plans.rescan import rescan_regions
from xrf_sr_plans.plans.resume_collection import resume_collection
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.plans.survey_and_collect import survey_and_collect_pairs
from xrf_sr_plans.plans.xrf_map import xrf_map, xrf_map_start_stop

USER_PLANS: tuple[Callable[..., Any], ...] = (
    coarse_survey_with_sr,
    rescan_regions,
    rescan_approved,
    xrf_map,
    xrf_map_start_stop,
    acquire_pair,
    collect_pairs,
    survey_and_collect_pairs,
    resume_collection,
)
"""The plans that users type."""


def bind_plans(
    beamline: Beamline, subscribers: Sequence[Callable[[str, Any], Any]] = ()
) -> dict[str, Callable[..., Generator[Any, Any, Any]]]:
    """Return the plans that a user types, by name, without the parameter `beamline`.

    They are generator functions with JSON parameters, types as annotations and literal defaults,
    which is what the queue server needs. A wrong argument is refused before anything moves, and by
    the queue server, where it is installed, as soon as it is submitted.

    Parameters
    ----------
    beamline
        The devices that all of them use.
    subscribers
        Each plan subscribes them to all documents of the RunEngine that runs it, for as long as
        it runs.
    """
    return {plan.__name__: _bound(plan, beamline, subscribers) for plan in USER_PLANS}


def _bound(
    plan: Callable[..., Any],
    beamline: Beamline,
    subscribers: Sequence[Callable[[str, Any], Any]],
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return one plan without its parameter `beamline`."""

    @functools.wraps(plan)
    def bound(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        given = checked_arguments(plan.__name__, bound.__signature__, args, kwargs)  # type: ignore[attr-defined]
        steps = plan(beamline, **given)
        if subscribers:
            steps = bpp.subs_wrapper(steps, list(subscribers))
        return (yield from steps)

    original = inspect.unwrap(plan)
    hints = typing.get_type_hints(original)
    signature = inspect.signature(original)
    kept = [
        parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
        if name != "beamline"
    ]
    returned = hints.get("return", signature.return_annotation)
    # The queue server evaluates annotations outside this module, so they must not be strings.
    bound.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=kept, return_annotation=returned
    )
    bound.__annotations__ = {
        **{parameter.name: parameter.annotation for parameter in kept},
        "return": returned,
    }
    bound.beamline = beamline  # type: ignore[attr-defined]
    return checked_at_submission(bound)
