"""A workspace in a test, and commands typed in it as a person would."""

import os
import secrets
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lepton_platform.pipeline.params import PROFILES
from lepton_platform.settings import STORES

BIN = Path(sys.executable).parent
TASKS = sorted(yaml.safe_load((PROFILES / "smoke.yaml").read_text(encoding="utf-8")))


def free_port(count: int = 1) -> int:
    """The first of ``count`` ports in a row that nobody listens on.

    They lie below those that the kernel gives to clients, and every test process has a range of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        first = 10_000 + 5_000 * (worker % 4) + secrets.randbelow(5_000 - count)
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


@dataclass(frozen=True)
class Workspace:
    """A workspace, and commands typed in it as a person would, with ports of its own."""

    folder: Path
    ports: dict[str, str] = field(
        default_factory=lambda: {
            f"LEPTON_{name}_PORT": str(free_port(count))
            for name, count in (("UI", 1), ("SERVICE", 8), ("EVIDENTLY", 1))  # a service a task
        }
    )

    def environment(self) -> dict[str, str]:
        dropped = {"LEPTON_WORKSPACE", *STORES}
        kept = {k: v for k, v in os.environ.items() if k not in dropped}
        kept["PATH"] = f"{BIN}{os.pathsep}{kept['PATH']}"
        kept["DVC_SITE_CACHE_DIR"] = str(self.folder / ".lepton" / "dvc")
        return kept | self.ports

    def call(self, *words: str, code: int = 0, timeout_s: float = 900) -> str:
        """Run a command of the environment; returns what it printed on both streams."""
        answer = subprocess.run(
            words, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=timeout_s
        )
        assert answer.returncode == code, answer.stdout + answer.stderr
        return answer.stdout + answer.stderr

    def output(self, *words: str) -> str:
        """The same, standard output alone."""
        return subprocess.run(
            words, cwd=self.folder, env=self.environment(), capture_output=True, text=True, check=True
        ).stdout

    def lock(self) -> bytes:
        return (self.folder / "dvc.lock").read_bytes()


def new_workspace(folder: Path, **variables: str) -> Workspace:
    """A smoke workspace in which nothing has run; ``variables`` join its commands' environment."""
    folder.mkdir(parents=True)
    made = Workspace(folder)
    made.ports.update(variables)
    made.call("lepton", "init", str(folder), "--profile", "smoke")
    return made
