"""The models that ship with the package: weights, model cards and calibration files."""
