"""Several processes, one training: torchrun starts them, DistributedDataParallel averages their gradients.

    the stage's process ── agent (torchrun) ── worker 0, worker 1 …

The stage's process only watches: the first worker writes its progress and its result to standard output, a line of
JSON each. When the stage's process is killed, the kernel kills the agent and the workers: none goes on writing.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lepton_platform.stage import Progress, StageFailed, StageResult
from lepton_platform.training.weights import write_json
from lepton_platform.training.world import World

if TYPE_CHECKING:
    import torch

    from lepton_platform.training.train import Job

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
AGENT, WORKER = "lepton_platform.training.agent", "lepton_platform.training.worker"
LOG_LINES = 40  # of the workers' errors, shown when they fail
START_S = 1800  # a worker waits so long for another: the first one may be fetching an encoder
_PR_SET_PDEATHSIG = 1


def launch(job: Job, processes: int, progress: Progress) -> StageResult:
    """Run the job in ``processes`` workers on this machine; what fails fails as if it had run here."""
    described, log = job.scratch / "job.json", job.scratch / "workers.log"
    places = {name: str(getattr(job, name).resolve()) for name in ("dataset", "out", "scratch", "cache")}
    write_json(described, {**places, "params": job.params.model_dump(mode="json"), "part": job.part.__name__})
    command = [sys.executable, "-m", AGENT, "--standalone", "--local-addr=127.0.0.1"]
    command += [f"--nproc-per-node={processes}", "-m", WORKER, str(described)]
    with log.open("wb") as errors:
        agent = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment(job)
        )
    assert agent.stdout is not None
    try:
        result = _listen(agent.stdout, progress)
        code = agent.wait()
    finally:
        if agent.poll() is None:
            agent.terminate()
            agent.wait()
    if code or result is None:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        raise RuntimeError(f"Training in {processes} processes failed (exit code {code}):\n" + "\n".join(lines))
    return result


def _environment(job: Job) -> dict[str, str]:
    """The workers find this package and meet on this machine alone."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))
    found = {**os.environ, "OMP_NUM_THREADS": str(job.params.threads), "PYTHONPATH": path}
    if sys.platform == "linux":
        found |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return found


def _listen(lines: IO[str], progress: Progress) -> StageResult | None:
    """Pass the progress on until the workers are gone; their result, if they had one."""
    result: StageResult | None = None
    for line in lines:
        message: dict[str, Any] = json.loads(line)
        if "progress" in message:
            progress(*message["progress"])
        elif "failed" in message:
            raise StageFailed(message["failed"], message["details"])
        else:
            result = StageResult(**message["result"])
    return result


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """This worker among the others that torchrun started: NCCL where each has a GPU, else gloo."""
    import torch
    from torch import distributed

    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(seconds=START_S))
    try:
        yield World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    finally:
        distributed.destroy_process_group()


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it is gone (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
