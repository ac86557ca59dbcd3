"""A scan record in a thread: it flies a whole map, tells nobody, and leaves a file in a folder.

The photons of a pixel follow from where it is, so that a test can tell whether each one arrived
in its place. While the shutter is closed there are none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import h5py
import numpy as np
from bluesky.utils import Msg
from ophyd.status import Status

from xrf_sr_plans.maps.files import MapsFile
from xrf_sr_plans.maps.files.model import FileAxis, LiveTime, build
from xrf_sr_plans.maps.grid import ScanGrid

LIVE_S = 0.008
ELEMENTS = ("Fe", "Zn")


def photons(x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
    """Return what is at these places, [element, row, column]."""
    iron = 1000 + 10 * x_um + 100 * y_um
    return np.stack([iron, 3000 - iron])


def write_maps_h5(path: Path, counts: np.ndarray, x_um: np.ndarray, y_um: np.ndarray) -> None:
    """Write counts [element, row, column] as XRF-Maps does: as rates, with live times."""
    with h5py.File(path, "w") as file:
        maps = file.create_group("MAPS")
        analyzed = maps.create_group("XRF_Analyzed/ROI")
        analyzed["Counts_Per_Sec"] = counts / LIVE_S
        analyzed["Channel_Names"] = np.array([*ELEMENTS], dtype="S")
        maps["Spectra/Elapsed_Livetime"] = np.full(counts.shape[1:], LIVE_S)
        for name, centers in (("x", x_um), ("y", y_um)):
            maps[f"Scan/{name}_axis"] = centers
            maps[f"Scan/{name}_axis"].attrs["units"] = "um"


def write_npz(path: Path, counts: np.ndarray, x_um: np.ndarray, y_um: np.ndarray) -> None:
    """Write counts [element, row, column] for `read_npz`, which takes no time."""
    with path.open("wb") as stream:
        np.savez(stream, counts=counts, x=x_um, y=y_um)


def read_npz(path: Path) -> MapsFile:
    """Read what `write_npz` wrote: a reader as a beamline may have one of its own."""
    with np.load(path) as file:
        axes = {name: FileAxis(file[name], "um", name) for name in "xy"}
        return build(
            file["counts"],
            ELEMENTS,
            layout="npz",
            path=str(path),
            axes=axes,
            units="counts",
            live_time=LiveTime(np.array(LIVE_S), "live"),
        )


class ScanRecord:
    """Flies a map in a thread, at `row_s` a row, and writes a file when it is done.

    `on_row` is called before each row. `after` does something to the counts [element, row,
    column] before they are written.
    """

    parent = None
    name = "scan1"

    def __init__(self, folder: Path, is_open: Callable[[], bool], row_s: float = 0.002) -> None:
        self.folder, self.row_s = folder, row_s
        self.is_open = is_open
        self.on_row: Callable[[int], object] = lambda row: None
        self.write = write_npz
        self.after: Callable[[np.ndarray], np.ndarray] = lambda counts: counts
        self.grid: ScanGrid | None = None
        self.extra_columns = 0
        self.scans = self.aborts = self.rows_flown = 0
        self.busy = False
        self._abort = threading.Event()

    def plan(self, grid: ScanGrid, dwell_ms: float) -> Iterator[Msg]:
        """Stands for a beamline's own plan, which sets up scan records and waits for their end."""
        self.grid = grid
        yield from bps.checkpoint()
        yield from bps.null()
        yield from bps.trigger(self, group="scan")
        yield from bps.wait("scan")

    def trigger(self) -> Status:
        self.scans += 1
        self.busy = True
        self._abort.clear()
        status = Status()
        threading.Thread(target=self._fly, args=(status, self.scans), daemon=True).start()
        return status

    def abort(self) -> None:
        self.aborts += 1
        self._abort.set()

    def _fly(self, status: Status, number: int) -> None:
        grid = self.grid
        x_um = grid.fast.start_um + grid.fast.step_um * np.arange(
            grid.fast.num + self.extra_columns
        )
        y_um = grid.slow.centers_um
        counts = photons(x_um[None, :], y_um[:, None])
        flown = 0
        for row in range(grid.slow.num):
            self.on_row(row)
            if self._abort.wait(self.row_s):
                break
            if not self.is_open():
                counts[:, row] = 0
            flown += 1
            self.rows_flown += 1
        counts[:, flown:] = 0
        path = self.folder / f"scan_{number:04d}.h5"
        if flown:
            self.write(path, self.after(counts), x_um, y_um)
        self.busy = False
        status.set_finished()


def rows_by_index(events: list[dict[str, Any]], detector: str) -> dict[int, dict[str, Any]]:
    """Return the data of row events, the last one of each row."""
    return {event["data"][f"{detector}_row"]: event["data"] for event in events}
