"""Joining a bus: documents that others publish go to the analysis, and results leave again."""
