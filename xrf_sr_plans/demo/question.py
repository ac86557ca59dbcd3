"""The surveys that the demo flies: a sample, what is looked for in it, and within which time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xrf_sr_plans.devices.sim.grains import grains
from xrf_sr_plans.devices.sim.sample import Sample, zagami
from xrf_sr_plans.errors import ConfigError

FINE_STEP_UM = 0.5
"""Step of the fine rescans; the survey's step is `factor` times as large."""
DWELL_MS = 10.0
"""Time at each step of the survey and at each pixel of the rescans."""


@dataclass(frozen=True)
class Question:
    """A sample and what is looked for in it.

    Parameters
    ----------
    sample
        Makes the sample from a seed.
    label
        What the sample is, in a line for the picture.
    about
        The same for the report, with where it comes from.
    factor
        How many times finer than the survey the enhanced map is, unless somebody asks for another.
    element
        The element that is looked for ...
    above
        ... with more photons per coarse pixel than this ...
    size_um
        ... in places of at least this size: the diameter of the circle of the same area.
    survey
        Further arguments of `coarse_survey_with_sr`: area, budget and regions.
    """

    sample: Callable[[int], Sample]
    label: str
    about: str
    factor: int
    element: str
    above: float
    size_um: float
    survey: dict[str, Any] = field(default_factory=dict)

    @property
    def find(self) -> str:
        """The query."""
        return f"{self.element} > {self.above:g} and size > {self.size_um:g} um"

    @property
    def fewest_px(self) -> float:
        """Fine pixels of the smallest place that is looked for."""
        return math.pi / 4 * (self.size_um / FINE_STEP_UM) ** 2

    def arguments(self, factor: int) -> dict[str, Any]:
        """Return the arguments of `coarse_survey_with_sr`."""
        return {
            "x_center_um": 0.0,
            "y_center_um": 0.0,
            "step_um": FINE_STEP_UM * factor,
            "dwell_ms": DWELL_MS,
            "factor": factor,
            "find": self.find,
            **self.survey,
        }


QUESTIONS = {
    "grains": Question(
        lambda seed: grains(seed=seed),
        "made-up field of real grains: they were cut out of a map of the Zagami meteorite; places, "
        "support, pixel size and photon rates were made up",
        "made-up field of real grains: cut out of the Zagami meteorite (EPMA-WDS, pixlise/core, "
        "Apache-2.0), laid on a plain support, with made-up pixel size and photon rates",
        factor=4,
        element="K",
        above=25.0,
        size_um=3.0,
        # The budget is a fifth of the time for a fine map of everything. The margin of one coarse
        # pixel is what a ragged edge needs to be held to its last pixel.
        survey={"width_um": 240.0, "height_um": 160.0, "pad_um": 2.0, "budget_s": 320.0},
    ),
    "zagami": Question(
        lambda seed: zagami(),
        "measured map of the Zagami meteorite, with made-up pixel size and photon rates",
        "Zagami meteorite (EPMA-WDS, pixlise/core, Apache-2.0) with made-up pixel size and photon "
        "rates",
        factor=2,
        element="K",
        above=30.0,
        size_um=1.5,
        survey={
            "width_um": 120.0,
            "height_um": 40.0,
            "pad_um": 1.0,
            "min_size_um": 5.0,
            "budget_s": 90.0,
        },
    ),
}
"""What the demo flies, by the name of the sample."""


def question_about(sample: str) -> Question:
    """Return the survey that the demo flies on a sample.

    Raises
    ------
    ConfigError
        The demo doesn't know the sample.
    """
    if sample not in QUESTIONS:
        raise ConfigError(f"sample is {sample!r}; it should be {' or '.join(QUESTIONS)}")
    return QUESTIONS[sample]
