"""The folders below which files are read that a document or another file names."""

from xrf_sr_plans.maps.files.roots import ROOTS_VARIABLE, configured_roots, inside_roots

__all__ = ["ROOTS_VARIABLE", "configured_roots", "inside_roots"]
