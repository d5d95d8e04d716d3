"""The lock file is canonical: its bytes tell what was made, never in which order or by how many runs."""

import itertools
import subprocess
from pathlib import Path

import pytest

from lepton_platform.pipeline.lineage import all_versions
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.pipeline.versioning import Versions, init
from lepton_platform.settings import use_workspace
from lepton_platform.stage import StageFailed

TASKS = ("sentiment", "digits", "trees")
STAGE = "  {task}-raw:\n    cmd: lepton stage raw {task}\n    outs:\n    - data/{task}/raw\n"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    init(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages:\n" + "".join(STAGE.format(task=task) for task in TASKS))
    for task in TASKS:
        (tmp_path / "data" / task / "raw").mkdir(parents=True)
        (tmp_path / "data" / task / "raw" / "rows").write_text(task)
    return tmp_path


def record(workspace: Path, *tasks: str) -> bytes:
    with Versions(use_workspace(workspace)) as versions:
        for task in tasks:
            versions.record(get_stage("raw"), task, versions.read_hashes(get_stage("raw"), task))
    return (workspace / "dvc.lock").read_bytes()


def reads_a_file_of_ones_own(workspace: Path) -> None:
    """The last of the tasks."""
    table = workspace / "dvc.yaml"
    table.write_text(table.read_text() + "    deps:\n    - data/mine.csv\n")


def test_a_workspace_that_becomes_a_git_repository_later_keeps_its_cache_out_of_it(workspace: Path):
    record(workspace, "digits")
    git = ["git", "-C", str(workspace)]
    subprocess.run([*git, "init", "-q"], check=True)
    init(workspace)
    subprocess.run([*git, "add", "-A"], check=True)
    tracked = subprocess.run([*git, "ls-files"], check=True, capture_output=True, text=True).stdout.split()
    assert ".dvc/config" in tracked and not [name for name in tracked if name.startswith((".dvc/cache", ".dvc/tmp"))]
    with Versions(use_workspace(workspace)) as versions:
        assert type(versions.repo.scm).__name__ == "Git"


def test_the_order_in_which_stages_end_does_not_show_in_the_lock(workspace: Path):
    locks = set()
    for order in itertools.permutations(TASKS):
        (workspace / "dvc.lock").unlink(missing_ok=True)
        locks.add(record(workspace, *order))
    assert len(locks) == 1
    text = locks.pop().decode()
    assert sorted(TASKS, key=lambda task: text.index(f"{task}-raw:")) == list(TASKS), "as dvc.yaml has them"


def test_recording_keeps_what_the_lock_says_of_others_and_leaves_nothing_beside_it(workspace: Path):
    record(workspace, *TASKS)
    before = (workspace / "dvc.lock").read_text()
    (workspace / "data" / "digits" / "raw" / "rows").write_text("other digits")
    after = record(workspace, "digits").decode()
    changed = [ours for ours, old in zip(after.splitlines(), before.splitlines(), strict=True) if ours != old]
    assert all("md5:" in line or "size:" in line for line in changed) and changed
    assert not list(workspace.glob(".dvc.lock*"))
    with Versions(use_workspace(workspace)) as versions:
        assert {versions.state(get_stage("raw"), task) for task in TASKS} == {"fresh"}


def test_what_was_altered_by_hand_in_an_output_is_brought_back(workspace: Path):
    reads_a_file_of_ones_own(workspace)
    (workspace / "data" / "mine.csv").write_text("a,b")
    record(workspace, "trees")
    made = workspace / "data" / "trees" / "raw"
    for altered in (made / "rows", made / "more"):
        altered.unlink(missing_ok=True)
        altered.write_text("by hand")
        with Versions(use_workspace(workspace)) as versions:
            assert versions.state(get_stage("raw"), "trees") == "stale"
            assert versions.restore(get_stage("raw"), "trees")
            assert versions.state(get_stage("raw"), "trees") == "fresh"
        assert {path.name: path.read_text() for path in made.iterdir()} == {"rows": "trees"}


def test_a_file_of_ones_own_that_is_not_there_is_named_with_where_it_was_looked_for(workspace: Path):
    reads_a_file_of_ones_own(workspace)
    with Versions(use_workspace(workspace)) as versions:
        assert versions.read_hashes(get_stage("raw"), "digits") == {}
        assert not versions.restore(get_stage("raw"), "trees")
        with pytest.raises(
            StageFailed, match=r"trees/raw reads data/mine\.csv, and there is no such file.*" + workspace.name
        ):
            versions.read_hashes(get_stage("raw"), "trees")


def test_a_version_is_noted_before_the_lock_names_it(workspace: Path):
    def killed(version: str) -> None:
        noted.append(version)
        raise KeyboardInterrupt

    noted: list[str] = []
    raw = get_stage("raw")
    with Versions(use_workspace(workspace)) as versions:
        with pytest.raises(KeyboardInterrupt):
            versions.record(raw, "trees", versions.read_hashes(raw, "trees"), killed)
        assert versions.version(raw, "trees") is None
        assert [versions.record(raw, "trees", versions.read_hashes(raw, "trees"))] == noted


def test_the_lock_tells_what_a_version_from_another_machine_was_made_of(workspace: Path):
    table = workspace / "dvc.yaml"
    clean = STAGE.format(task="trees").replace("raw", "clean") + "    deps:\n    - data/trees/raw\n"
    table.write_text(table.read_text() + clean)
    (workspace / "data" / "trees" / "clean").mkdir()
    (workspace / ".lepton").mkdir()
    settings = use_workspace(workspace)
    with Versions(settings) as versions:
        made = {
            name: versions.record(get_stage(name), "trees", versions.read_hashes(get_stage(name), "trees"))
            for name in ("raw", "clean")
        }
    assert all_versions(settings, "trees", {"clean": made["clean"]}) == made
    assert all_versions(settings, "trees", {"clean": "of before"}) == {"clean": "of before"}, "the lock knows another"
