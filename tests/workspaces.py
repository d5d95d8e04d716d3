"""A workspace in a test, and commands typed in it as a person would."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from lepton_platform.settings import STORES

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Workspace:
    """A workspace, and commands typed in it as a person would, with ports of its own."""

    folder: Path
    ports: dict[str, str] = field(
        default_factory=lambda: {
            f"LEPTON_{name}_PORT": str(free_port()) for name in ("UI", "SERVICE", "EVIDENTLY")
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
