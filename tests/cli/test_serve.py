"""`lepton up` where something is in its way."""

import socket

import pytest

from lepton_platform.cli import serve
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from tests.workspaces import free_port


def test_a_port_that_another_holds_is_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("LEPTON_UI_PORT", str(free_port()))
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("LEPTON_EVIDENTLY_PORT", str(other.getsockname()[1]))
        with pytest.raises(StageFailed, match=r"Port \d+ on 127\.0\.0\.1 cannot be used.*LEPTON_EVIDENTLY_PORT"):
            serve._start(Settings(workspace=tmp_path))
    assert not list(tmp_path.iterdir())
