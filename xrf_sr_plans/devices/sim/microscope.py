"""The simulated microscope as a plain physics object; the ophyd devices only plug into it.

All physics is `xrf_sr_plans.physics.forward`: the microscope says where the beam was.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.devices.sim.sample import Sample
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.physics import forward


@dataclass(frozen=True, eq=False)
class Exposure:
    """Where and how the frames of one row (or one point) are taken, before any noise.

    `start_um` and `stop_um` (frame,) are the ends of each frame's path along the fast axis, in
    order of acquisition; `beam` (frame,) multiplies the intensity, `monitor` (frame,) what the I0
    monitor shows of it, `gain` (frame,) the sample's rates; `alive` weighs the detector elements.
    """

    start_um: np.ndarray
    stop_um: np.ndarray
    slow_um: float
    dwell_s: float
    beam: np.ndarray
    monitor: np.ndarray
    gain: np.ndarray
    alive: np.ndarray
    noise_key: tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Readout:
    """What the detectors return for an exposure.

    `counts` is (element, frame), summed over detector elements; `i0` (frame,) in counts/s;
    `live_time_s` (frame,).
    """

    counts: np.ndarray
    i0: np.ndarray
    live_time_s: np.ndarray


class Microscope:
    """A sample under a focused beam, seen by a multi-element detector and an I0 monitor.

    Parameters
    ----------
    sample
        What lies under the beam; beyond its borders there is nothing.
    probe_fwhm_um
        Size of the (Gaussian) probe; 0 or None: a point.
    psf
        A measured probe on the sample's pixels, instead of the Gaussian.
    detector
        Detector elements, dead time, background, saturation.
    i0_cps
        What the I0 monitor shows at nominal flux.
    i0_ripple
        Relative RMS of the slow beam intensity fluctuation.
    seed
        Of all noise. The noise of a row follows from seed and row geometry alone, so that a row
        flown again is the same row.
    fresh_noise
        True: a map flown again over the same grid draws new noise (its re-flown rows don't).
    drift_um_per_s
        Velocity (x, y) of the sample on its stage, in simulated time. Neither axis knows.
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
        fresh_noise: bool = False,
        drift_um_per_s: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        if i0_cps <= 0 or i0_ripple < 0:
            raise ConfigError(f"i0_cps is {i0_cps}, i0_ripple {i0_ripple}; above 0 / 0 or more")
        self.sample = sample
        self.probe_fwhm_um = probe_fwhm_um
        self.detector = detector or forward.Detector()
        self.i0_cps = i0_cps
        self.i0_ripple = i0_ripple
        self.seed = seed
        self.fresh_noise = fresh_noise
        self.drift_um_per_s = drift_um_per_s
        self.shutter_open = True
        # Nothing lies beyond the sample: without a margin the border values would go on for ever.
        reach_px = (probe_fwhm_um or 0) / sample.pixel_um if psf is None else max(psf.shape) / 2
        self._margin_px = math.ceil(2 * reach_px) + 1
        padding = [(0, 0), *[(self._margin_px, self._margin_px)] * 2]
        self._blurred = forward.probe_blur(
            np.pad(sample.rates_cps, padding), sample.pixel_um, probe_fwhm_um, psf
        )

    @property
    def elements(self) -> tuple[str, ...]:
        """Element names, in the order of all counts."""
        return self.sample.elements

    def blurred_rates_cps(self) -> np.ndarray:
        """Return the sample as the probe sees it, (element, y, x) on the sample's pixels."""
        margin = self._margin_px
        return self._blurred[:, margin:-margin, margin:-margin]

    def drift_um(self, elapsed_s: float) -> tuple[float, float]:
        """Return how far, in (x, y), the sample has drifted: the beam meets it that much lower."""
        x, y = self.drift_um_per_s
        return x * elapsed_s, y * elapsed_s

    def rates_cps(self, start_um: np.ndarray, stop_um: np.ndarray, slow_um: float) -> np.ndarray:
        """Return expected rates (element, frame) along paths of the beam, at nominal flux."""
        pixel = self.sample.pixel_um
        row_px = (slow_um - self.sample.y_low_um) / pixel - 0.5 + self._margin_px
        profile = forward.row_profile(self._blurred, row_px)
        to_px = np.array([start_um, stop_um], dtype=float) - self.sample.x_low_um
        starts, stops = to_px / pixel + self._margin_px
        return forward.path_average(profile, starts, stops)

    def exposure(
        self,
        start_um: np.ndarray,
        stop_um: np.ndarray,
        slow_um: float,
        dwell_s: float,
        noise_key: tuple[object, ...],
    ) -> Exposure:
        """Return an exposure with everything in order."""
        ones = np.ones(len(start_um))
        alive = np.ones(self.detector.n_elements)
        return Exposure(
            np.asarray(start_um, dtype=float),
            np.asarray(stop_um, dtype=float),
            slow_um,
            dwell_s,
            ones,
            ones,
            ones,
            alive,
            noise_key,
        )

    def expose(self, exposure: Exposure) -> Readout:
        """Count: expected rates, beam fluctuation, detector elements, dead time, Poisson."""
        rng = self.rng(exposure.noise_key)
        num = len(exposure.start_um)
        if num > 1:
            ripple = forward.i0_ripple(num, self.i0_ripple, rng)
        else:
            ripple = 1 + self.i0_ripple * rng.standard_normal(num)
        beam = ripple * exposure.beam * (1.0 if self.shutter_open else 0.0)
        rates = self.rates_cps(exposure.start_um, exposure.stop_um, exposure.slow_um)
        counts, live = forward.detect(
            rates * exposure.gain,
            exposure.dwell_s,
            rng,
            i0_relative=beam,
            detector=self.detector,
            alive=exposure.alive,
        )
        expected = self.i0_cps * beam * exposure.monitor * exposure.dwell_s
        i0 = rng.poisson(np.clip(expected, 0, None)) / exposure.dwell_s
        return Readout(counts.sum(axis=0), i0, live)

    def rng(self, key: tuple[object, ...]) -> np.random.Generator:
        """Return the generator of the noise that belongs to `key` and this microscope's seed."""
        digest = hashlib.sha256(repr((self.seed, *key)).encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "little"))
