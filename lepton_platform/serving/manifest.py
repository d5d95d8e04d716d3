"""What a Bento was made of, as hashes: its manifest, and the check of a folder against it."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_platform.serving.bundle import MANIFEST, MODEL, version_of

FORMAT = 1
SIGNATURE = "signature.json"  # lies beside the manifest in a Bento store, over every other file
FORMATS = frozenset(
    {".py", ".json", ".onnx", ".txt", ".arpa", ".yaml", ".md"}
)  # source code, and data that run nothing
NAMED = frozenset({"env/docker/Dockerfile", "env/docker/entrypoint.sh"})
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # of a file or a folder; none is hidden
_TASK = re.compile(r"[a-z][a-z0-9_]*")


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(folder: Path) -> dict[str, str]:
    """Every file below: path → SHA-256, sorted. What the interpreter leaves beside the code does not count, and a
    Bento's signature is no part of what it signs."""
    signature = folder / SIGNATURE if (folder / MANIFEST).is_file() else None
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(files) if path != signature}


def tree_hash(folder: Path) -> str:
    """SHA-256 over the names and the contents of a folder's files."""
    return hashlib.sha256(json.dumps(tree(folder), sort_keys=True).encode()).hexdigest()


def headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of ``metrics.json`` that fit on a page: numbers, words and intervals."""

    def fits(value: Any) -> bool:
        if isinstance(value, list):
            return len(value) == 2 and all(isinstance(part, int | float) for part in value)
        return isinstance(value, bool | int | float | str)

    return {name: value for name, value in sorted(metrics.items()) if fits(value)}


def dump(manifest: Mapping[str, Any]) -> bytes:
    """Canonical: the same content is the same bytes, and so the same version."""
    return (json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def differences(stated: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is missing, was added or was changed; both are path → SHA-256."""
    named = [f"{name} is missing" for name in stated if name not in found]
    named += [f"{name} was added" for name in found if name not in stated]
    return named + [f"{name} was changed" for name in stated if name in found and found[name] != stated[name]]


def problems(bento: Path) -> list[str]:
    """What in a Bento's folder differs from its manifest; empty where it is whole."""
    content = (bento / MANIFEST).read_bytes()
    found = {f"src/{name}": digest for name, digest in tree(bento / "src").items()}
    found.pop("src/bentofile.yaml", None)  # BentoML's own note of how it was called
    named = differences(json.loads(content)["files"], found)
    info = (bento / "bento.yaml").read_text("utf-8") if (bento / "bento.yaml").is_file() else ""
    if f"version: {version_of(content)}\n" not in info:
        named.append("bento.yaml names another version than the manifest's content gives")
    return named


def listing(bento: Path) -> list[str]:
    """Every file below, sorted, by what lies there and not by what a link leads to.

    ``ValueError`` names what no Bento holds: a link, a pipe or a device, a name that is odd or hidden, a format that is
    not in ``FORMATS`` (pickles, ``.pt``, libraries, byte code).
    """
    found: list[str] = []
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(bento / below) as entries:
            for entry in entries:
                path = f"{below}{entry.name}"
                if not _NAME.fullmatch(entry.name):
                    raise ValueError(f"{path!r} has a name that no file of a Bento has")
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                    continue
                if not entry.is_file(follow_symlinks=False):
                    kind = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
                    raise ValueError(f"{path} is {kind}; a Bento holds its files itself")
                _check_format(path)
                found.append(path)
    return sorted(found)


def _check_format(path: str) -> None:
    suffix = Path(path).suffix
    if path in NAMED or suffix in FORMATS:
        return
    if suffix == ".pyc":
        raise ValueError(f"{path} is byte code, which runs in the place of the source: remove the __pycache__ folders")
    known = " ".join(sorted(FORMATS))
    raise ValueError(f"{path} is of a format that a Bento does not hold; it holds {known}")


def agreed(bento: Path, digests: Mapping[str, str]) -> dict[str, Any]:
    """The manifest, where it and the files (``digests``: path → SHA-256, proven) say the same; ``ValueError`` where not.

    Every file of ``src`` is one that the manifest names, with its hash; ``bento.yaml`` has the name and the version that
    follow from the manifest; the model's folder holds ``config.json`` and the files that it names, and no other.
    """
    content = _proven(bento, MANIFEST, digests)
    manifest = json.loads(content)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{MANIFEST} is not of format {FORMAT}, the one that this version of the platform reads")
    task, files = manifest.get("task"), manifest.get("files")
    if not isinstance(task, str) or not _TASK.fullmatch(task) or not isinstance(files, dict):
        raise ValueError(f"{MANIFEST} names no task or no files")
    source = {name: digest for name, digest in digests.items() if name.startswith("src/")}
    source.pop("src/bentofile.yaml", None)
    if wrong := differences(files, source):
        raise ValueError(f"{MANIFEST} does not name what is there: {'; '.join(wrong[:5])}")
    info = _proven(bento, "bento.yaml", digests).decode().splitlines()
    for line in (f"name: {task}", f"version: {version_of(content)}"):
        if line not in info:
            raise ValueError(f"bento.yaml has no line '{line}', which is what {MANIFEST} gives")
    _check_model(bento, digests)
    return manifest


def _proven(bento: Path, name: str, digests: Mapping[str, str]) -> bytes:
    """A file's bytes, which are those that were hashed."""
    content = (bento / name).read_bytes() if name in digests else b""
    if digests.get(name) != hashlib.sha256(content).hexdigest():
        raise ValueError(f"{name} is missing, or was changed while it was read")
    return content


def _check_model(bento: Path, digests: Mapping[str, str]) -> None:
    config = f"{MODEL}/config.json"
    told = json.loads(_proven(bento, config, digests))
    try:
        wanted = {"config.json", *told["runtime"]["graphs"].values(), *told.get("files", [])}
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{config} does not say which files the model consists of") from None
    found = {name.removeprefix(f"{MODEL}/") for name in digests if name.startswith(f"{MODEL}/")}
    if wanted != found:
        wrong = ", ".join(sorted(map(str, wanted ^ found)))
        raise ValueError(f"{MODEL} does not hold the files that its config.json names, and no other: see {wrong}")
