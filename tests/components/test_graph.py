"""The graph as Dagster sees it: it changes on purpose or not at all, and costs nothing heavy to load."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from lepton_platform.definitions import defs
from tests.workspaces import Workspace

SNAPSHOT = Path(__file__).parent / "snapshots" / "graph.json"
HEAVY = ("torch", "feast", "great_expectations", "evidently", "transformers", "bentoml", "sklearn")


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


def described(definitions: dg.Definitions) -> dict:
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    assets = {
        key.to_user_string(): {
            "deps": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
            "group": graph.get(key).group_name,
            "kinds": sorted(graph.get(key).kinds),
            "checks": sorted(check.name for check in graph.get(key).check_keys),
        }
        for key in sorted(graph.get_all_asset_keys(), key=str)
    }
    return {
        "assets": assets,
        "jobs": sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        "schedules": {s.name: str(s.cron_schedule) for s in repository.schedule_defs},
        "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    }


def test_the_graph_is_the_recorded_one(definitions: dg.Definitions):
    """Meant to change? Delete the snapshot, run this test, read the difference, commit it."""
    found = json.dumps(described(definitions), indent=1, sort_keys=True) + "\n"
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(found)
        pytest.fail(f"{SNAPSHOT.name} was missing and has been written; read it and commit it.")
    assert found == SNAPSHOT.read_text()


def test_every_asset_says_what_it_is_and_whose(definitions: dg.Definitions):
    graph = definitions.get_repository_def().asset_graph
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description and node.owners, key


def test_two_trainings_never_share_a_gpu(definitions: dg.Definitions):
    model = definitions.resolve_assets_def(dg.AssetKey(["sentiment", "model"]))
    assert model.op.pool == "gpu"
    import yaml

    instance = yaml.safe_load((Path(__file__).parents[2] / "dagster_home" / "dagster.yaml").read_text())
    assert instance["concurrency"]["pools"]["default_limit"] == 1


def test_loading_the_definitions_imports_nothing_heavy():
    script = (
        "import sys\nfrom lepton_platform.definitions import defs\n"
        f"defs().get_repository_def()\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_failing_contract_stops_what_follows_in_both_faces(copy):
    workspace: Workspace = copy()
    params = workspace.folder / "params.yaml"
    params.write_text(params.read_text().replace("min_rows: 800", "min_rows: 1000000"))
    said = workspace.call("lepton", "run", "sentiment", code=1)
    assert "Traceback" not in said and "1000000" in said.replace(",", "")
    stages = json.loads(workspace.output("lepton", "status", "--json"))["tasks"]["sentiment"]["stages"]
    assert stages["contract"]["state"] == "failed" and stages["features"]["behind"] == ["contract"]
    with dg.DagsterInstance.from_config(str(workspace.folder / "dagster_home")) as instance:
        key = dg.AssetCheckKey(dg.AssetKey(["sentiment", "contract"]), "expectations")
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.event is not None and record.event.dagster_event is not None
        found = record.event.dagster_event.asset_check_evaluation_data
        assert not found.passed and "failed" in found.metadata
    said = workspace.call("dvc", "repro", code=255)
    assert "sentiment-features" not in said and "failed to reproduce 'sentiment-contract'" in said
