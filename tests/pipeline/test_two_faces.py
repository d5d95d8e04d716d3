"""`lepton run` and `dvc repro` on one workspace: the same bytes, the same versions, the same idea of what is stale."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lepton_platform.pipeline.stages import STAGES

BIN = Path(sys.executable).parent
NAMES = [f"sentiment-{stage.name}" for stage in STAGES]


def call(folder: Path, *words: str, code: int = 0) -> str:
    """Run a command of the environment in the folder as a person would; returns what it printed."""
    dropped = {"LEPTON_WORKSPACE", "DAGSTER_HOME", "BENTOML_HOME", "DVC_SITE_CACHE_DIR"}
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    environment["DVC_SITE_CACHE_DIR"] = str(folder / ".lepton" / "dvc")
    answer = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert answer.returncode == code, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def states(folder: Path) -> dict[str, str]:
    found = json.loads(call(folder, "lepton", "status", "--json"))
    return {name: row["state"] for name, row in found["tasks"]["sentiment"]["stages"].items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory, cache_dir) -> Path:
    """A smoke workspace that Dagster's face has brought up to date."""
    folder = tmp_path_factory.mktemp("faces") / "workspace"
    call(folder.parent, "lepton", "init", str(folder), "--profile", "smoke")
    call(folder, "lepton", "run")
    return folder


@pytest.mark.slow
def test_after_a_run_dvc_is_clean_and_nothing_runs_in_either_face(built: Path):
    assert set(states(built).values()) == {"fresh"}
    assert "up to date" in call(built, "dvc", "status")
    lock = (built / "dvc.lock").read_bytes()
    assert "Running stage" not in call(built, "dvc", "repro")
    assert "nothing ran" in call(built, "lepton", "run")
    assert (built / "dvc.lock").read_bytes() == lock


@pytest.mark.slow
def test_a_forced_repro_in_a_copy_leaves_the_same_lock(built: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    assert call(copy, "dvc", "repro", "-f").count("Running stage") == len(NAMES)
    assert (copy / "dvc.lock").read_bytes() == (built / "dvc.lock").read_bytes()


@pytest.mark.slow
def test_a_changed_parameter_runs_again_and_its_return_brings_back_the_old_bytes(built: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    text, lock = (folder / "params.yaml").read_text(), (folder / "dvc.lock").read_bytes()
    (folder / "params.yaml").write_text(text.replace("  clean: {}", "  clean: {max_size: 150}"))
    said = call(folder, "lepton", "run", "--upto", "clean")
    assert "│ ran" in next(line for line in said.splitlines() if line.startswith("│ clean"))
    assert (folder / "dvc.lock").read_bytes() != lock
    (folder / "params.yaml").write_text(text)
    assert "│ ran" not in call(folder, "lepton", "run", "--upto", "clean")
    assert (folder / "dvc.lock").read_bytes() == lock


@pytest.mark.slow
def test_after_dvc_repro_dagster_is_told_the_same_versions(tmp_path: Path, cache_dir: Path):
    folder = tmp_path / "workspace"
    call(tmp_path, "lepton", "init", str(folder), "--profile", "smoke")
    call(folder, "dvc", "repro")
    told = call(folder, "lepton", "versioning", "sync")
    assert all(f"sentiment/{stage.name}" in told for stage in STAGES), told
    assert "Dagster knows every version" in call(folder, "lepton", "versioning", "sync")
    assert "nothing ran" in call(folder, "lepton", "run")


@pytest.mark.slow
def test_a_changed_parameter_is_stale_in_both_faces_and_one_run_settles_both(built: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    before = (folder / "dvc.lock").read_bytes()
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["sentiment"]["clean"]["max_size"] = 150
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    changed = [name for name in NAMES if f"{name}:" in call(folder, "dvc", "status")]
    stale = [f"sentiment-{name}" for name, state in states(folder).items() if state == "stale"]
    assert changed[0] == stale[0] == "sentiment-clean"
    assert set(changed) <= set(stale)
    call(folder, "dvc", "repro")
    assert set(states(folder).values()) == {"fresh"}
    assert "nothing ran" in call(folder, "lepton", "run")
    assert (folder / "dvc.lock").read_bytes() != before
