"""The package as its user installs it: a wheel, in another folder, serving a workspace of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspaces import new_workspace

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import lepton_platform, sys
assert lepton_platform.__file__.startswith(sys.argv[1]), lepton_platform.__file__
from lepton_platform.definitions import defs
print(len(list(defs().get_repository_def().asset_graph.get_all_asset_keys())))
"""


@pytest.mark.slow
def test_an_installed_wheel_makes_a_workspace_and_loads_its_definitions(tmp_path: Path):
    site = tmp_path / "site"
    install = ["uv", "pip", "install", "-q", "--no-deps", "--target", str(site), str(ROOT)]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True, text=True)
    workspace = new_workspace(tmp_path / "workspace", PYTHONPATH=str(site))
    assert (workspace.folder / "code.yaml").is_file(), "the code lies elsewhere: its hashes stand in code.yaml"
    assert workspace.call(sys.executable, "-c", SCRIPT, str(site)).strip().splitlines()[-1].isdigit()
    assert "raw" in workspace.call("lepton", "run", "--upto", "raw")
    assert "up to date" in workspace.call("dvc", "status", "sentiment-raw")
