"""Elemental maps from files: npz, MAPS, PyXRF and NeXus HDF5."""

from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.photons import as_photons
from xrf_sr_plans.maps.files.read import FILE_READERS, read_maps
from xrf_sr_plans.maps.files.reader import FileReader

__all__ = ["FILE_READERS", "FileReader", "MapsFile", "ReadOptions", "as_photons", "read_maps"]
