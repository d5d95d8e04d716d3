"""Bento and manifest, services, prediction log, deployments."""
