"""A workspace of one task, with nothing in it yet."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_platform.settings import STORES, Settings, use_workspace


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name in (*STORES, "LEPTON_WORKSPACE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back at the end, whatever is written meanwhile
        monkeypatch.delenv(name)
    monkeypatch.setattr("lepton_platform.settings._settings", None)
    (tmp_path / "params.yaml").write_text("sentiment: {}\n")
    found = use_workspace(tmp_path)
    found.state_dir.mkdir()
    yield found
