"""`Ride`: where the axes of a device are on the sample, as they ride on other axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.maps.stage_placement import Sign


def _nowhere_else() -> tuple[float, float]:
    return 0.0, 0.0


@dataclass(frozen=True)
class Ride:
    """Where two axes are on the sample: ``sample = base + sign * axis``, in um.

    Parameters
    ----------
    sign
        For the fast and the slow axis whether it runs with or against the sample's coordinate.
    base_um
        Returns where on the sample the two axes read 0.
    """

    sign: tuple[Sign, Sign] = (1, 1)
    base_um: Callable[[], tuple[float, float]] = _nowhere_else

    def x_um(self, fast_um: np.ndarray) -> np.ndarray:
        """Return positions of the fast axis, of any shape, on the sample."""
        return self.base_um()[0] + self.sign[0] * fast_um

    def y_um(self, slow_um: float) -> float:
        """Return a position of the slow axis on the sample."""
        return self.base_um()[1] + self.sign[1] * slow_um

    @property
    def noise_key(self) -> tuple[float, ...]:
        """What noise depends on besides the positions of the axes; empty where that is nothing."""
        base = tuple(round(um, 4) for um in self.base_um())
        return base if any(base) else ()
