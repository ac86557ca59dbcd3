"""The simulated microscope as a plain physics object, into which thin ophyd devices are plugged.

All physics is in `xrf_sr_plans.physics.forward`. The microscope adds where the beam was.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.devices.sim.sample import Sample
from xrf_sr_plans.physics import forward
from xrf_sr_plans.ranges import ABOVE_ZERO, ANY_NUMBER, SEED, Range, check


@dataclass(frozen=True, eq=False)
class Exposure:
    """Where and how the frames of one row, or of one point, are taken, before any noise.

    Parameters
    ----------
    start_um
        Where each frame begins along the fast axis, in um on the sample, shape (frame,) in order
        of acquisition.
    stop_um
        Where each frame ends, shape (frame,).
    slow_um
        Position on the slow axis, in um on the sample.
    dwell_s
        Time of each frame, in s.
    beam
        Intensity of the beam as a multiple of the nominal one, shape (frame,).
    monitor_gain
        What the beam monitor shows, as a multiple of what it should, shape (frame,).
    sample_gain
        Rates of the sample, as a multiple of what they should be, shape (frame,).
    element_weights
        What each detector element counts, as a multiple of what it should, shape
        (detector element,).
    noise_key
        What the noise depends on besides the microscope's seed.
    """

    start_um: np.ndarray
    stop_um: np.ndarray
    slow_um: float
    dwell_s: float
    beam: np.ndarray
    monitor_gain: np.ndarray
    sample_gain: np.ndarray
    element_weights: np.ndarray
    noise_key: tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Readout:
    """What the detectors return for an exposure.

    Parameters
    ----------
    counts
        Photons of each elemental line, summed over detector elements, shape (element, frame).
    i0
        Rate of the beam monitor in counts/s, shape (frame,).
    live_time_s
        Live time of one detector element in s, shape (frame,).
    """

    counts: np.ndarray
    i0: np.ndarray
    live_time_s: np.ndarray


_RIPPLE = Range(0.0, 10.0)
_PROBE_UM = Range(0.0, 1000.0)


def _psf_flaw(psf: Any) -> str:
    """Return what is wrong with a measured probe, or "" where nothing is."""
    image = np.asarray(psf)
    if image.ndim == 2 and image.dtype.kind in "uif" and image.size:
        if np.isfinite(image).all() and (image >= 0).all() and image.sum() > 0:
            return ""
        return "psf holds what is no intensity; it must be finite, 0 or more, and not all 0"
    return f"psf has the shape {image.shape} of {image.dtype}; (y, x) of numbers is needed"


class Microscope:
    """A sample under a focused beam, seen by a multi-element detector and an I0 monitor.

    Parameters
    ----------
    sample
        What lies under the beam. Beyond its borders there is nothing.
    probe_fwhm_um
        Size (FWHM) of the Gaussian probe; 0 or None: the probe is a point.
    psf
        A measured probe (y, x) on the sample's pixels, used instead of the Gaussian.
    detector
        Detector elements, dead time, background and saturation; None: those of
        `forward.Detector`.
    i0_cps
        What the I0 monitor shows at nominal flux, in counts/s.
    i0_ripple
        Relative RMS of the slow fluctuation of the beam intensity.
    seed
        Seed of all noise. The same maps in the same order have the same photons.
    fresh_noise
        Whether each map draws noise of its own, as real maps of one area do. The noise of a row
        follows from the seed, its geometry and the number of maps before it, so that a row that
        is flown again within a map is the same row. False: two maps over the same grid are the
        same map.
    drift_um_per_s
        Velocity (x, y) of the sample on its stage, in simulated time, which no encoder shows.

    Raises
    ------
    ConfigError
        A number is outside its range, or `psf` is no image of a probe.
    """

    def __init__(
        self,
        sample: Sample,
        *,
        probe_fwhm_um: float | None = 0.5,
        psf: np.ndarray | None = None,
        detector: forward.Detector | None = None,
        i0_cps: float = 1.0e7,
        i0_ripple: float = 0.01,
        seed: int = 0,
        fresh_noise: bool = True,
        drift_um_per_s: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        check(
            "microscope",
            ABOVE_ZERO.flaw("i0_cps", i0_cps),
            _RIPPLE.flaw("i0_ripple", i0_ripple),
            SEED.flaw("seed", seed),
            "" if probe_fwhm_um is None else _PROBE_UM.flaw("probe_fwhm_um", probe_fwhm_um),
            "" if psf is None else _psf_flaw(psf),
            ANY_NUMBER.pair_flaw("drift_um_per_s", drift_um_per_s),
        )
        self.sample = sample
        self.probe_fwhm_um = probe_fwhm_um
        self.detector = detector or forward.Detector()
        self.i0_cps = i0_cps
        self.i0_ripple = i0_ripple
        self.seed = seed
        self.fresh_noise = fresh_noise
        self.drift_um_per_s = drift_um_per_s
        self.shutter_open = True
        self._staged: set[str] = set()
        self._n_stagings = 0
        # Beyond the sample there is nothing. Without an empty margin around it, the operators of
        # `forward` would continue its border values for ever.
        reach_px = (probe_fwhm_um or 0) / sample.pixel_um if psf is None else max(psf.shape) / 2
        self._margin_px = math.ceil(2 * reach_px) + 1
        padding = [(0, 0), *[(self._margin_px, self._margin_px)] * 2]
        self._blurred = forward.probe_blur(
            np.pad(sample.rates_cps, padding), sample.pixel_um, probe_fwhm_um, psf
        )

    @property
    def elements(self) -> tuple[str, ...]:
        """The element names, in the order of all counts."""
        return self.sample.elements

    def blurred_rates_cps(self) -> np.ndarray:
        """Return the sample as the probe sees it, (element, y, x) on the sample's pixels."""
        margin = self._margin_px
        return self._blurred[:, margin:-margin, margin:-margin]

    def drift_um(self, elapsed_s: float) -> tuple[float, float]:
        """Return how far the sample has drifted in (x, y) after `elapsed_s` simulated seconds.

        The beam meets the sample at positions that are lower by as much.
        """
        x, y = self.drift_um_per_s
        return x * elapsed_s, y * elapsed_s

    def rates_cps(self, start_um: np.ndarray, stop_um: np.ndarray, slow_um: float) -> np.ndarray:
        """Return the rates that are expected along paths of the beam, at nominal flux.

        Parameters
        ----------
        start_um
            Where each path begins along the fast axis, in um on the sample, shape (frame,).
        stop_um
            Where each path ends, shape (frame,).
        slow_um
            Position of all paths on the slow axis, in um on the sample.

        Returns
        -------
        np.ndarray
            Photons per second, shape (element, frame).
        """
        pixel = self.sample.pixel_um
        # Rows count from the center of the first one, columns from the edge of the first one.
        row_px = (slow_um - self.sample.y_low_um) / pixel - 0.5 + self._margin_px
        profile = forward.row_profile(self._blurred, row_px)
        to_px = np.array([start_um, stop_um], dtype=float) - self.sample.x_low_um
        starts, stops = to_px / pixel + self._margin_px
        return forward.path_average(profile, starts, stops)

    def ideal_exposure(
        self,
        start_um: np.ndarray,
        stop_um: np.ndarray,
        slow_um: float,
        dwell_s: float,
        noise_key: tuple[object, ...],
    ) -> Exposure:
        """Return an exposure without any fault; parameters as in `Exposure`."""
        ones = np.ones(len(start_um))
        return Exposure(
            start_um=np.asarray(start_um, dtype=float),
            stop_um=np.asarray(stop_um, dtype=float),
            slow_um=slow_um,
            dwell_s=dwell_s,
            beam=ones,
            monitor_gain=ones,
            sample_gain=ones,
            element_weights=np.ones(self.detector.n_elements),
            noise_key=noise_key,
        )

    def expose(self, exposure: Exposure) -> Readout:
        """Count photons, with fluctuating beam, dead time and counting noise."""
        rng = self.rng(exposure.noise_key)
        num = len(exposure.start_um)
        if num > 1:
            ripple = forward.i0_ripple(num, self.i0_ripple, rng)
        else:
            # A single point has no neighbors to fluctuate slowly with.
            ripple = 1 + self.i0_ripple * rng.standard_normal(num)
        beam = ripple * exposure.beam * (1.0 if self.shutter_open else 0.0)
        rates = self.rates_cps(exposure.start_um, exposure.stop_um, exposure.slow_um)
        counts, live = forward.detect(
            rates * exposure.sample_gain,
            exposure.dwell_s,
            rng,
            i0_relative=beam,
            detector=self.detector,
            alive=exposure.element_weights,
        )
        expected = self.i0_cps * beam * exposure.monitor_gain * exposure.dwell_s
        i0 = rng.poisson(np.clip(expected, 0, None)) / exposure.dwell_s
        return Readout(counts.sum(axis=0), i0, live)

    def stage(self, device: str) -> tuple[object, ...]:
        """Note that a device begins to measure point by point; return its part of noise keys.

        It is the same for all devices that are staged together, because they see one beam.
        """
        if not self._staged:
            self._n_stagings += 1
        self._staged.add(device)
        return (self._n_stagings,) if self.fresh_noise else ()

    def unstage(self, device: str) -> None:
        """Note that a device has ended to measure point by point."""
        self._staged.discard(device)

    def rng(self, key: tuple[object, ...]) -> np.random.Generator:
        """Return the random generator that belongs to `key` and to this microscope's seed."""
        digest = hashlib.sha256(repr((self.seed, *key)).encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "little"))
