"""`left_to_fly`: what is left of a collection of pairs, which is kept as a survey's proposal is."""

from __future__ import annotations

from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import Claimed
from xrf_sr_plans.approval.states import RegionState


def left_to_fly(
    folder: ApprovalFolder, collection_uid: str
) -> tuple[list[RegionState], list[RegionState]]:
    """Return the areas of a collection without a complete pair.

    Parameters
    ----------
    folder
        Where collections are written down.
    collection_uid
        The collection.

    Returns
    -------
    left
        What can be flown: what was not begun, failed or was refused, and what a session of this
        machine had that has ended.
    held
        What a session that runs, or one on another machine, has taken to fly it.

    Raises
    ------
    RefusedError
        There is no such collection.
    """
    claims = {
        (event.key, event.attempt): event
        for event in folder.events(collection_uid)
        if isinstance(event, Claimed)
    }
    left, held = [], []
    for state in folder.regions(collection_uid):
        if state.disposition == "rescanned":
            continue
        claim = claims.get((state.key, state.attempt)) if state.claimed_by else None
        (left if claim is None or claim.is_orphan else held).append(state)
    return left, held
