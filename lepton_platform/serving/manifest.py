"""What a Bento was made of, as hashes: its manifest, and the check of a folder against it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_platform.serving.bundle import MANIFEST, version_of

FORMAT = 1


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(folder: Path) -> dict[str, str]:
    """Every file below: path → SHA-256, sorted. What the interpreter leaves beside the code does not count."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(files)}


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


def problems(bento: Path) -> list[str]:
    """What in a Bento's folder differs from its manifest; empty where it is whole."""
    content = (bento / MANIFEST).read_bytes()
    stated: dict[str, str] = json.loads(content)["files"]
    found = {f"src/{name}": digest for name, digest in tree(bento / "src").items()}
    found.pop("src/bentofile.yaml", None)  # BentoML's own note of how it was called
    named = [f"{name} is missing" for name in stated if name not in found]
    named += [f"{name} was added" for name in found if name not in stated]
    named += [f"{name} was changed" for name in stated if name in found and found[name] != stated[name]]
    info = (bento / "bento.yaml").read_text("utf-8") if (bento / "bento.yaml").is_file() else ""
    if f"version: {version_of(content)}\n" not in info:
        named.append("bento.yaml names another version than the manifest's content gives")
    return named
