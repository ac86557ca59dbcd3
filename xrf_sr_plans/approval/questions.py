"""What plans ask of the approval desk, and how they read its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans.approval.records import Proposal
from xrf_sr_plans.approval.states import RegionState
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.schema import Undecided


@dataclass(frozen=True)
class Question:
    """What a survey asks: which of its regions shall be flown.

    Parameters
    ----------
    proposal
        The regions, and how they would be flown.
    owner
        Uid of the plan call, which flies what is approved.
    timeout_s
        How long to wait for decisions, in seconds; None: nobody is asked now.
    undecided
        What becomes of what is undecided then.
    """

    proposal: Proposal
    owner: str
    timeout_s: float | None = None
    undecided: Undecided = "propose"


@dataclass(frozen=True)
class Collect:
    """Take what was approved, by a plan call with the uid `owner`, in order to fly it.

    With `again`, what failed or was refused before is approved once more, and so is what a session
    has that has ended.
    """

    survey_uid: str
    owner: str
    by: str = "rescan_approved"
    again: bool = False


def states_in(name: str, reading: Mapping[str, Any] | None) -> tuple[RegionState, ...]:
    """Return the states in a reading of the desk `name`.

    Raises
    ------
    RefusedError
        There is no reading, or it is not one of a desk.
    """
    plain = (reading or {}).get(f"{name}_regions", {}).get("value")
    if plain is None:
        raise RefusedError(f"{name}: no reading")
    return tuple(RegionState.from_dict(state) for state in json.loads(plain))
