"""Elemental maps from files: npz, MAPS, PyXRF and NeXus HDF5."""

from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.photons import as_photons
from xrf_sr_plans.maps.files.read import read_maps

__all__ = ["MapsFile", "as_photons", "read_maps"]
