"""The gateway as its supervisor sees it: a process that inherits the port, is told the table, and tells what it sees.

Both talk in lines of JSON through the process's own input and output; an input that ends is the word to end. A process
that is told no table yet answers nobody: one stands by so, all imported, and takes over in an instant where the other dies.
"""

import json
import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from typing import Any

from lepton_platform.gateway.observed import Observed

STOP_S = 15.0
AGAIN_S = 0.2  # before a gateway that died is started again; doubled up to LONGEST_S while it dies at once
LONGEST_S = 10.0
DEATHS_S = 600.0  # after which a death is forgotten
logger = logging.getLogger("lepton.supervisor")


class GatewayProcess:
    """Keeps one running; the port stays bound, so that who comes meanwhile waits and is not refused."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.used: set[str] = set()  # sockets in the table that it was told last
        self._told = ""
        self._rest = b""
        self._wait, self._next_try = AGAIN_S, 0.0
        self._deaths: deque[float] = deque()  # the latest
        self._process, self._spare = self._started(), self._started()
        self._begun = time.monotonic()

    def _started(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "lepton_platform.gateway.server", "--fd", str(self.listening.fileno())]
        process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            pass_fds=(self.listening.fileno(),),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        return process

    @property
    def told(self) -> bool:
        """Does it live, and know the table?"""
        return self._told != "" and self._process.poll() is None

    @property
    def output(self) -> int:
        """What becomes readable when it has seen something."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def deaths(self) -> int:
        """How often it has died within the last ``DEATHS_S``."""
        while self._deaths and self._deaths[0] < time.monotonic() - DEATHS_S:
            self._deaths.popleft()
        return len(self._deaths)

    def keep(self, table: dict[str, Any]) -> None:
        """Start it again where it has died; tell it the table where that has changed."""
        if self._process.poll() is not None and not self._again():
            return
        line = json.dumps(table)
        if line == self._told:
            return
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it has died; the next call sees it
        self._told = line
        roles = [route[role] for route in table.values() for role in ("champion", "canary", "shadow")]
        self.used = {target["socket"] for target in roles if target is not None}

    def _again(self) -> bool:
        now = time.monotonic()
        if self._next_try == 0.0:
            logger.error("the gateway ended with %s", self._process.returncode)
            self._deaths.append(now)
            lived = now - self._begun
            self._wait = AGAIN_S if lived > LONGEST_S else min(self._wait * 2, LONGEST_S)
            self._next_try = now if lived > LONGEST_S else now + self._wait
        if now < self._next_try:
            return False
        _close(self._process)
        self._process, self._spare = self._spare, self._started()
        self._told, self._rest, self._next_try, self._begun = "", b"", 0.0, now
        return True

    def seen(self) -> dict[int, Observed]:
        """What it has seen of each deployment since the last call."""
        found: dict[int, Observed] = {}
        try:
            data = os.read(self.output, 1 << 20)
        except BlockingIOError:
            return found
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            for identifier, told in json.loads(line).items():
                found.setdefault(int(identifier), Observed()).add(Observed.from_json(told))
        return found

    def wait(self, seconds: float, woken: int) -> None:
        """Until it has seen something, or ``woken`` can be read, or so long."""
        alive = self._process.poll() is None  # else its output has ended, and would be readable for ever
        select.select([woken, self.output] if alive else [woken], [], [], seconds)

    def stop(self) -> None:
        """Let it finish its requests."""
        self._spare.kill()  # it answers nobody
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for process in (self._process, self._spare):
            process.wait()
            _close(process)


def _close(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:
            continue
