"""The stage functions from a plain script: ``python -m benchmarks.plain WORKSPACE TASK``; seconds a stage as JSON.

No Dagster, no DVC, no ledger, no child process: one interpreter that does the work and nothing else.
"""

import json
import sys
import time
from pathlib import Path

from lepton_platform.pipeline.run import execute
from lepton_platform.pipeline.stages import STAGES
from lepton_platform.settings import use_workspace

if __name__ == "__main__":
    settings, seconds = use_workspace(Path(sys.argv[1])), {}
    for stage in STAGES:
        started = time.perf_counter()
        execute(settings, sys.argv[2], stage)
        seconds[stage.name] = time.perf_counter() - started
    print(json.dumps(seconds))
