"""Training data, the training loop, and the calibration of a trained model."""
