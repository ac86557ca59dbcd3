"""Make a RunEngine unless the session has one (queue server, BITS)."""

from bluesky import RunEngine

if "RE" not in globals():
    RE = RunEngine({})
