"""BentoML's store of this workspace: `bentoml list` shows what is in it, `bentoml serve <tag>` runs it.

A Bento is copied beside its place and renamed into it, so that a kill leaves no half Bento under its tag.
BentoML keeps one folder a version and a file ``latest``; it is not imported for that.
"""

import json
import os
import shutil
from pathlib import Path

from lepton_platform.serving.bundle import MANIFEST, version_of
from lepton_platform.serving.manifest import problems
from lepton_platform.stage import StageFailed


def tag_of(bento: Path) -> str:
    """``<name>:<version>`` of a Bento's folder; ``StageFailed`` where it is none of ours."""
    try:
        content = (bento / MANIFEST).read_bytes()
        return f"{json.loads(content)['task']}:{version_of(content)}"
    except (FileNotFoundError, NotADirectoryError):
        raise StageFailed(f"{bento} is no Bento of this platform: it has no {MANIFEST}.") from None


def stored(home: Path, tag: str) -> Path:
    """Where the store keeps this tag, whether or not it is there."""
    name, version = tag.split(":")
    return home / "bentos" / name / version


def import_bento(home: Path, bento: Path) -> Path:
    """Put a Bento into the store below ``home`` (BENTOML_HOME), whole; returns its place there.

    ``StageFailed`` where its files are not those that its manifest names.
    """
    tag = tag_of(bento)
    wrong = problems(bento)
    if wrong:
        raise StageFailed(
            f"The Bento in {bento} is not what its manifest says: {'; '.join(wrong[:5])}. Build it again: stage bento."
        )
    place = stored(home, tag)
    if not place.is_dir() or problems(place):
        _copy(bento, place, home / "tmp")
    latest = place.parent / "latest"
    fresh = latest.with_name(f".latest-{os.getpid()}")
    fresh.write_text(place.name, "utf-8")
    fresh.replace(latest)
    return place


def _copy(bento: Path, place: Path, scratch: Path) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    fresh, old = (scratch / f"{word}-{place.name}-{os.getpid()}" for word in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(bento, fresh, ignore=shutil.ignore_patterns("__pycache__"))
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)
