"""BentoML's store of this workspace: `bentoml list` shows what is in it, `bentoml serve <tag>` runs it.

What this workspace built is signed as it enters; what comes from elsewhere enters if a trusted key has signed it, and is
refused otherwise. A Bento is prepared beside its place and renamed into it, so that a kill leaves no half Bento under its
tag. BentoML keeps one folder a version and a file ``latest``; it is not imported for that.
"""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_platform.serving.bundle import MANIFEST, version_of
from lepton_platform.serving.manifest import SIGNATURE, listing, problems, tree
from lepton_platform.serving.signing import KEYS, Keys, sign, verified
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


def import_bento(home: Path, bento: Path, keys: Keys | None = None) -> Path:
    """Put what this workspace built, the output of its stage ``bento``, into the store below ``home`` (BENTOML_HOME).

    Returns its place there. The copy is signed with the workspace's own key (``keys``; those beside ``home`` if not given).
    Nothing else is signed: what lies in the store already is verified, and what carries a signature was built elsewhere
    and is imported by ``import_signed``. ``StageFailed`` where its files are not those that its manifest names.
    """
    keys = keys or Keys(home.parent / KEYS)
    if bento.parent.parent.resolve() == (home / "bentos").resolve():
        return _point_to(checked(home, f"{bento.parent.name}:{bento.name}", keys))
    if (bento / SIGNATURE).exists():
        return import_signed(home, bento, keys)
    tag = tag_of(bento)
    wrong = problems(bento)
    if wrong:
        raise StageFailed(
            f"The Bento in {bento} is not what its manifest says: {'; '.join(wrong[:5])}. Build it again: stage bento."
        )
    if _kept(home, tag, keys):
        return _point_to(stored(home, tag))
    with scratch(home) as folder:
        fresh = folder / stored(home, tag).name
        _copy(bento, fresh, tree(bento))
        sign(fresh, keys)
        return adopt(home, fresh, keys, bento)


def import_signed(home: Path, bento: Path, keys: Keys) -> Path:
    """Put a Bento from elsewhere, such as another workspace's store, into the store; returns its place there.

    ``StageFailed`` where no key that is trusted here has signed it as it is: it is never signed on the way.
    """
    with scratch(home) as folder:
        try:
            _copy(bento, folder / "bento", listing(bento))
        except (ValueError, OSError) as error:
            raise StageFailed(f"The Bento in {bento} is refused and nothing of it was loaded: {error}.") from None
        return adopt(home, folder / "bento", keys, bento)


def checked(home: Path, tag: str, keys: Keys) -> Path:
    """The place of a Bento in the store, verified: to be called before anything of it is loaded.

    The interpreter's byte code is removed from it before: `bentoml serve` leaves some, and it would run in the place of
    the source. ``StageFailed`` says why the Bento is refused.
    """
    place = stored(home, tag)
    for folder, below, _ in [] if place.is_symlink() else os.walk(place):
        if "__pycache__" in below:
            below.remove("__pycache__")
            shutil.rmtree(Path(folder, "__pycache__"), ignore_errors=True)  # of a link it removes nothing
    verified(place, keys, tag)
    return place


def adopt(home: Path, fresh: Path, keys: Keys, origin: Path) -> Path:
    """Verify a folder that lies in the store's ``scratch`` and rename it into its place, which is returned.

    ``origin``: what an error calls it.
    """
    verified(fresh, keys, origin=origin)
    tag = tag_of(fresh)
    place = stored(home, tag)
    if not _kept(home, tag, keys):
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place):
            place.rename(fresh.with_name("replaced"))
        fresh.rename(place)
    return _point_to(place)


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """A folder on the store's file system that is gone afterwards."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bento-", dir=home / "tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _kept(home: Path, tag: str, keys: Keys) -> bool:
    """Is it in the store, as it should be?"""
    try:
        return checked(home, tag, keys).is_dir()
    except StageFailed:
        return False


def _copy(bento: Path, fresh: Path, names: Iterable[str]) -> None:
    for name in names:
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bento / name, fresh / name)


def _point_to(place: Path) -> Path:
    """Make it the one that is used where no version is named."""
    latest = place.parent / "latest"
    fresh = latest.with_name(f".latest-{os.getpid()}-{threading.get_ident()}")
    fresh.write_text(place.name, "utf-8")
    fresh.replace(latest)
    return place
