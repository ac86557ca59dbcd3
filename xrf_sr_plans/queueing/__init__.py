"""Rescans through bluesky-queueserver, and the device that a survey hands its regions to."""
