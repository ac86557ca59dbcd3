"""Stored runs, and what the analysis remembers between runs.

Documents are written to files or to Tiled and read back from there or from databroker. Predictions,
the ledger of how they did, and pairs of coarse and fine maps are kept in folders.
"""
