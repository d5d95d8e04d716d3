"""Fit, devices, distribution, regularisation, checkpoints, quality."""
