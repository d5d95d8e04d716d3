"""A worker: one process that serves one Bento, from the Bento's own code, on a Unix socket."""

import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lepton_platform.gateway.routing import Target

READY_S = 60.0  # for a worker to load its model
STOP_S = 15.0  # for a worker to finish its requests; longer than its own limit
_numbers = count(1)
logger = logging.getLogger("lepton.supervisor")


@dataclass(frozen=True)
class Serving:
    """What a worker is started with. ``bento``: the Bento's folder in the store."""

    deployment: int
    task: str
    tag: str
    bento: Path


class Worker:
    """Made in the folder of sockets: their names are relative to it, and so never too long."""

    def __init__(self, serving: Serving, predictions: Path) -> None:
        self.serving, self.socket = serving, f"{serving.deployment}-{next(_numbers)}.sock"
        self.ready, self.draining_since, self.started = False, None, time.monotonic()
        self._told: float | None = None
        Path(self.socket).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(self.socket)
            listening.listen(1024)
            self._ready, ready = os.pipe()
            command = [sys.executable, "-m", "lepton_platform.serving.server", "--bento", str(serving.bento)]
            command += ["--predictions", str(predictions), "--fd", str(listening.fileno()), "--ready-fd", str(ready)]
            command += ["--parent", str(os.getpid()), "--deployment", str(serving.deployment)]
            self.process = subprocess.Popen(
                command,
                cwd=serving.bento / "src",
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # the Bento's folder stays as it was built
                pass_fds=(listening.fileno(), ready),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is the supervisor's to pass on
            )
        os.close(ready)

    draining_since: float | None

    @property
    def target(self) -> Target:
        return Target(self.serving.deployment, self.serving.tag, self.socket)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def late(self) -> bool:
        return not self.ready and time.monotonic() - self.started > READY_S

    def look(self) -> None:
        """Has it said that it answers?"""
        if not self.ready and select.select([self._ready], [], [], 0)[0]:
            self.ready = os.read(self._ready, 1) == b"1"

    def drain(self, after_s: float) -> bool:
        """Nobody sends to it any more: let it finish, then make sure. Called again and again; ``True`` when it is gone."""
        now = time.monotonic()
        self.draining_since = now if self.draining_since is None else self.draining_since
        if self.ended:
            self.close()
            return True
        waited = now - self.draining_since
        if waited >= after_s and self._told is None:
            self.process.terminate()
            self._told = now
        elif waited >= after_s + STOP_S:
            logger.warning("the worker of %s did not stop in %g s and is killed", self.serving.tag, STOP_S)
            self.process.kill()
        return False

    def close(self) -> None:
        """After its end."""
        os.close(self._ready)
        Path(self.socket).unlink(missing_ok=True)


def stop_all(workers: list[Worker], pause: Callable[[float], None] = time.sleep) -> None:
    """Drain all of them side by side, until none is left."""
    left = list(workers)
    while left:
        left = [worker for worker in left if not worker.drain(0.0)]
        if left:
            pause(0.05)
