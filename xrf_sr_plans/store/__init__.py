"""Runs at rest: files, Tiled, databroker, exports; reading any of them back as documents."""
