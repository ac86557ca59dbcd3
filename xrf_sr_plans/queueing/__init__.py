"""Rescans through bluesky-queueserver: the device that a survey hands its regions to."""
