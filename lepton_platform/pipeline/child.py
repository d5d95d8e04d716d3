"""A heavy stage as a child process: ``python -m lepton_platform.pipeline.child STAGE TASK [PARENT]``.

Started through Dagster Pipes, it streams step, figures and throughput back and ends with the stage's result; the
same command runs on Ray or Kubernetes. Recording the result is the parent's part, and so is the lock on the stage's
folder, which goes with the parent: a child that went on alone would write where the next run does. PARENT is its pid.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from lepton_platform.pipeline.run import execute
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.settings import get_settings
from lepton_platform.stage import StageFailed
from lepton_platform.training.distributed import die_with_parent

EVERY_S = 0.5  # between two messages of progress
# Pipes' reader takes half a line for a whole one, and what is longer than a buffer (8 KiB) is written in two halves
PART_CHARS = 3_000  # of JSON, which quotes may double


def main(stage: str, task: str, parent: str = "") -> int:
    from dagster_pipes import open_dagster_pipes

    die_with_parent()
    if parent and os.getppid() != int(parent):  # it was killed while all this was imported
        return 1
    with open_dagster_pipes() as pipes:
        last = 0.0

        def progress(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
            nonlocal last
            if done >= total or time.monotonic() - last >= EVERY_S:
                last = time.monotonic()
                pipes.report_custom_message({"progress": {"done": done, "total": total, "values": dict(values or {})}})

        message: dict[str, Any]
        try:
            message = {"result": asdict(execute(get_settings(), task, get_stage(stage), progress))}
        except StageFailed as failure:
            message = {"failed": {"message": failure.message, "details": failure.details}}
        for part in in_parts(message):
            pipes.report_custom_message(part)
    return 0


def in_parts(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A message as several that are short."""
    text = json.dumps(message)
    for start in range(0, len(text), PART_CHARS):
        yield {"part": text[start : start + PART_CHARS], "last": start + PART_CHARS >= len(text)}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
