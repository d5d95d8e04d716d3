"""One figure of the served quality: Dagster's check, the alert, /metrics and the overview tell the book's last word."""
# ruff: noqa: F811 - arguments are fixtures

from pathlib import Path

import dagster as dg
import pytest

from lepton_platform.components.live import served_quality_asset
from lepton_platform.gateway import loop_metrics
from lepton_platform.gateway.labelled import Agreed
from lepton_platform.gateway.loop import Loop
from lepton_platform.gateway.metrics import text
from lepton_platform.gateway.overview import overview
from lepton_platform.gateway.routing import Route, Target
from lepton_platform.gateway.samples import Samples
from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.root import MARKER
from lepton_platform.settings import Settings, use_workspace
from tests.pipeline.test_feedback import TASK, answered, serve
from tests.serving.conftest import bento  # noqa: F401 - a fixture


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    (tmp_path / MARKER).write_text(f"{TASK}: {{feedback: {{min_rows: 50}}}}\n")
    return use_workspace(tmp_path)


def test_it_is_told_alike_wherever_it_is_told(settings: Settings, bento: Path) -> None:
    tag = serve(settings, bento)
    for truth in ("fresh", "rotten"):
        answered(settings, tag, 40, truth)
    result = dg.materialize([served_quality_asset(TASK, [], 24)], instance=dg.DagsterInstance.ephemeral())
    [check] = result.get_asset_check_evaluations()
    state = Loop(settings).read([TASK])
    found = state.tasks[TASK].served
    assert found is not None and found.state == "failed" and not check.passed
    assert check.description == found.why == Alerts(settings, []).of(TASK, "quality")[0].why
    told = {name: check.metadata[name].value for name in ("estimate", "low", "high", "tested", "labelled", "as_of")}
    assert told == {**{name: getattr(found, name) for name in told if name != "labelled"}, "labelled": 80}
    samples = text(loop_metrics.families(state))
    for name, value in (("served_quality", 0.5), ("served_quality_low", found.low), ("tested_quality", found.tested)):
        lines = [line for line in samples.splitlines() if line.startswith(f"lepton_{name}{{")]
        assert [float(line.rpartition(" ")[2]) for line in lines] == [value], name
    table = {TASK: Route(Target(1, tag, "1.sock"), None, 0.0, None)}
    [shown] = overview(table, Samples(), Samples(), 0.0, state, [])["tasks"]
    assert shown["served_quality"] == found.as_dict()
    assert state.tasks[TASK].agreed == {tag: Agreed(40, 80)}  # the quick figure: of labels it must be the same share
    assert shown["label_agreement"][0]["share"] == found.estimate
