"""Drift, performance, resources, alerts."""
