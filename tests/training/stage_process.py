"""Run the stage ``model`` in a process of its own: ``python stage_process.py JOB.json``; may kill itself at a step."""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

import psutil

from lepton_platform.training.params import TrainParams
from lepton_platform.training.train import model


def main(path: Path) -> None:
    job = json.loads(path.read_text())
    part = importlib.import_module(job["part"])

    def progress(done, total, values=None):
        if done == job.get("kill_at"):
            below = [child.pid for child in psutil.Process().children(recursive=True)]
            Path(job["scratch"], "below.json").write_text(json.dumps(below))
            os.kill(os.getpid(), signal.SIGKILL)

    places = {name: Path(job[name]) for name in ("dataset", "out", "scratch", "cache")}
    result = model(params=TrainParams(**job["params"]), model=part, progress=progress, **places)
    Path(job["scratch"], "result.json").write_text(json.dumps({**result.metadata, **result.metrics}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
