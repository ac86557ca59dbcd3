"""Make the beamline that a settings file describes: a simulated one, unless another is named.

The variable XRF_SR_SETTINGS names another file. `xrf-sr config example` writes one to begin with.
"""

import os

from xrf_sr_plans import Beamline
from xrf_sr_plans.config.examples import example

# The simulation's clock may be set by XRF_SIM_CLOCK, and its sample by XRF_SIM_SAMPLE.
beamline = Beamline.from_settings(
    os.environ.get("XRF_SR_SETTINGS") or example("simulated"), globals()
)
globals().update(beamline.devices)
