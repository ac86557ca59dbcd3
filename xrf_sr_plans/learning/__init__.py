"""A beamline's own pairs to a better model: train, calibrate, compare, and use it only if it is."""
