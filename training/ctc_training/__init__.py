"""Training: from reviewed or simulated slides to a calibrated model."""
