"""One of the processes that train together; ``training/distributed.py`` has torchrun start them."""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

from lepton_platform.stage import StageFailed
from lepton_platform.training.devices import choose_device
from lepton_platform.training.distributed import die_with_parent, joined
from lepton_platform.training.params import TrainParams
from lepton_platform.training.part import ModelPart
from lepton_platform.training.train import Job, train


def read_job(path: Path) -> Job:
    """The job that ``launch`` described."""
    told = json.loads(path.read_text(encoding="utf-8"))
    places = {name: Path(told[name]) for name in ("dataset", "out", "scratch", "cache")}
    part = cast(ModelPart, importlib.import_module(told["part"]))
    return Job(params=TrainParams(**told["params"]), part=part, **places)


def only_messages() -> IO[str]:
    """Standard output, kept for messages: what anything else prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return channel


def main(path: Path) -> int:
    die_with_parent()
    channel = only_messages()

    def tell(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    def progress(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
        tell({"progress": [done, total, dict(values or {})]})

    job = read_job(path)
    with joined(choose_device(job.params.device, int(os.environ["LOCAL_RANK"]))) as world:
        try:
            result = train(job, world, progress)
        except StageFailed as failure:
            if world.first:
                tell({"failed": failure.message, "details": failure.details})
            return 1
        if world.first:
            tell({"result": asdict(result)})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
