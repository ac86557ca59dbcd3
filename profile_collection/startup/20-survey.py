"""Start the analysis process, the console, and bind the plans to the beamline."""

from xrf_sr_plans.session import start_session

# What the analysis does and where runs are kept is said by the settings file of the beamline. Each
# setting can be given as an environment variable too, such as XRF_SR_DEVICE or XRF_SR_STORE=off;
# `xrf-sr config show` lists them. The console shows progress, news and refusals in one line each,
# and gives preview, approve, latest_survey, surveys and others.
xrf_session = start_session(RE, beamline, console=True)
analysis, rescan_queue = xrf_session.analysis, xrf_session.beamline.rescan_queue
globals().update(xrf_session.names)
