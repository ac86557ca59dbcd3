"""The command line `xrf-sr`: what a user types outside of a bluesky session."""

from xrf_sr_plans.cli.program import app, main

__all__ = ["app", "main"]
