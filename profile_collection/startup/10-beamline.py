"""Make the devices of a simulated beamline.

At a real beamline this file makes a `Beamline` of its own axes, flyer and shutter instead.
"""

import os

from xrf_sr_plans.devices.sim import make_beamline

# XRF_SIM_CLOCK is "real", "instant", or a factor such as 10 for ten times as fast as real.
beamline = make_beamline(
    os.environ.get("XRF_SIM_SAMPLE", "zagami"), clock=os.environ.get("XRF_SIM_CLOCK", "real")
)

samx, samy = beamline.fast, beamline.slow
xrf, shutter = beamline.flyer, beamline.shutter
i0, xrfdet = beamline.i0, beamline.detector
