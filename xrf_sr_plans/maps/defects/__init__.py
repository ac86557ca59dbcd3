"""Detector defects in maps of counts, told from what a sample can give."""

from xrf_sr_plans.maps.defects.find import Defects, find_defects

__all__ = ["Defects", "find_defects"]
