"""Lepton: one graph from raw records to a monitored model service, and back again."""

import os

__version__ = "0.1.0"

# Telemetry of every tool is off, also for those that read the environment while they are imported.
for _name, _value in {
    "BENTOML_DO_NOT_TRACK": "True",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "FEAST_USAGE": "False",
    "GX_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_name, _value)
