"""`MapsWriter`: measured maps in Tiled as its web page and xarray show them.

Tiled's writer stores a run row by row, (row, element, frame), with frames in the order of
acquisition and axes without names. Beside the runs this keeps what people want to look at: the
map of each element on the stage.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from xrf_sr_plans.errors import in_words
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.run_index import MAX_OPEN_RUNS, RunIndex
from xrf_sr_plans.schema import kind_of_run

logger = logging.getLogger(__name__)

CONTAINER = "xrf_maps"
"""Name of the container of maps, on a server, beside the one of the runs."""
_FACTS = ("uid", "time", "scan_id", "plan_name", "sample", "proposal", "survey_uid")


class MapsWriter:
    """Write each measured map into a container of Tiled, under the uid of its run.

    A map is an xarray dataset with ``counts`` (element, row, frame), ``i0``, ``live_time_s`` and
    ``coverage`` (row, frame), the coordinates ``element`` (names), ``y_um`` (row) and ``x_um``
    (frame), and in its attributes what is known of the run. It never raises: what goes wrong is
    logged.

    Parameters
    ----------
    container
        The client of the container.
    """

    def __init__(self, container: Any) -> None:
        self._container = container
        self._index = RunIndex(lambda start: kind_of_run(start) == "map", MAX_OPEN_RUNS)
        self._open: OrderedDict[str, tuple[Mapping[str, Any], MapBuilder]] = OrderedDict()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of any run; only those of maps are looked at."""
        run = self._index.run_of(name, doc)
        if run is None:
            return
        try:
            self._take(run, name, doc)
        except Exception as error:  # noqa: BLE001 - the run itself is stored by somebody else
            self._open.pop(run, None)
            logger.warning("the map of run %s is not stored beside it: %s", run, in_words(error))

    def _take(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            self._open[run] = doc, MapBuilder(doc)
            while len(self._open) > MAX_OPEN_RUNS:
                self._open.popitem(last=False)
            return
        if run not in self._open:
            return
        start, builder = self._open[run]
        if name == "descriptor":
            builder.descriptor(doc)
        elif name == "event":
            builder.event(doc)
        elif name == "event_page":
            builder.event_page(doc)
        elif name == "stop":
            del self._open[run]
            self._write(run, start, builder)

    def _write(self, run: str, start: Mapping[str, Any], builder: MapBuilder) -> None:
        from tiled.client.xarray import write_xarray_dataset

        if run in self._container:
            self._container.delete_contents([run], recursive=True, external_only=False)
        dataset = as_dataset(builder.maps(), start)
        write_xarray_dataset(self._container, dataset, key=run)


def as_dataset(maps: ElementalMaps, start: Mapping[str, Any]) -> Any:
    """Return a measured map as an xarray dataset with the axes element, row and frame.

    Parameters
    ----------
    maps
        The map.
    start
        Start document of its run.
    """
    import xarray

    source = maps.dataset
    frames = {
        name: (("row", "frame"), np.asarray(source[name].values, dtype=float))
        for name in ("i0", "live_time_s", "coverage")
    }
    counts = np.asarray(source["counts"].values, dtype=float)
    facts = {key: start[key] for key in _FACTS if isinstance(start.get(key), str | int | float)}
    metadata = start.get("xrf_sr") or {}
    facts |= {key: metadata[key] for key in ("purpose", "beamline") if metadata.get(key)}
    return xarray.Dataset(
        {"counts": (("element", "row", "frame"), counts), **frames},
        coords={
            "element": ("element", np.array(list(maps.elements))),
            "y_um": ("row", np.asarray(maps.grid.slow.centers_um)),
            "x_um": ("frame", np.asarray(maps.grid.fast.centers_um)),
        },
        attrs={"units": "photons", **facts},
    )


def container_beside(runs: Any) -> Any:
    """Return the container for maps on the server of a catalog of runs, made if need be.

    It lies beside that of the runs, as programs that list the runs expect nothing else among them.
    Only where the runs are at the root it is inside.

    Parameters
    ----------
    runs
        The client of the catalog of runs.
    """
    home = runs.parent if runs.item["attributes"]["ancestors"] or runs.item["id"] else runs
    if CONTAINER in home:
        return home[CONTAINER]
    return home.create_container(CONTAINER)
