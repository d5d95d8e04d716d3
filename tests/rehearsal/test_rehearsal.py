"""The loop on trial: what a rehearsal touches, what it sends, and the whole play with its three endings."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from lepton_platform.pipeline.run import execute
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.rehearsal.scratch import scratch
from lepton_platform.rehearsal.shifts import SHIFTS, shift_of
from lepton_platform.rehearsal.timeline import Timeline
from lepton_platform.stage import StageFailed
from tests.workspaces import BIN


def test_a_scratch_workspace_is_alone_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEPTON_STATE_URL", "postgresql://production")
    monkeypatch.setenv("LEPTON_ALERT_WEBHOOK", "http://people")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    with scratch("sentiment", "rehearsal") as settings:
        folder = settings.workspace
        assert settings.database_url == f"sqlite:///{folder}/.lepton/state.sqlite"
        assert settings.alert_webhook == "" and settings.auth == "off" and settings.host == "127.0.0.1"
        assert settings.dagster_home == folder / "dagster_home" and settings.bentoml_home.is_relative_to(folder)
    assert not folder.exists() and dict(os.environ) == before and Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_rehearsed_is_named() -> None:
    with pytest.raises(StageFailed, match="There is no rehearsal of weather"):
        shift_of("weather")


def test_the_new_kind_of_text_is_real_labelled_and_enough(cache_dir: Path) -> None:
    with scratch("sentiment", "rehearsal") as settings:
        execute(settings, "sentiment", get_stage("raw"))
        usual, rows = SHIFTS["sentiment"].rows(settings)
    sizes, truths = SHIFTS["sentiment"].sizes, [row.truth for row in rows]
    assert len(rows) >= sizes.labelled + sizes.probe
    assert len(usual) == sizes.ordinary and not {row.content for row in usual} & {row.content for row in rows}
    for part in (truths[: sizes.probe], truths[sizes.probe :]):
        assert set(part) == {"fresh", "rotten"} and 0.4 < part.count("fresh") / len(part) < 0.6


def test_the_timeline_tells_each_beat_once() -> None:
    told = []
    timeline = Timeline(told.append)
    timeline.add("shift", "It rains.", rows=3)
    assert told == timeline.beats and timeline.as_list()[0]["figures"] == {"rows": 3}
    assert timeline.beats[0].at.endswith("Z") and timeline.beats[0].after_s >= 0


def said(told: str) -> list[str]:
    """How each ending ended, of what the command printed; else its last words."""
    try:
        return [f"{one['name']}: {one['as_hoped']}. {one['said']}" for one in json.loads(told)["endings"]]
    except ValueError:
        return [told[-6000:]]


def played(task: str, folder: Path) -> dict:
    dropped = {"LEPTON_WORKSPACE", "DAGSTER_HOME", "BENTOML_HOME", "DVC_SITE_CACHE_DIR"}
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    command = [str(BIN / "lepton"), "rehearse", task, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1_800)
    assert done.returncode == 0, "\n".join(said(done.stdout)) + done.stderr[-3000:]
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


FAMILIES = {"language": "sentiment", "vision": "trees", "speech": "prompts"}
STORY = ["built", "serving", "no alarm", "shift", "alarm", "retrain asked for", "retrained", "gate passed", "promoted"]


@pytest.mark.slow
@pytest.mark.timeout(1_800)  # a graph, a retraining and two more rebuilds
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_ends_as_it_should_three_times(family: str, tmp_path: Path) -> None:
    told = played(FAMILIES[family], tmp_path)
    endings = {ending["name"]: ending for ending in told["endings"]}
    assert list(endings) == ["promotion", "refusal", "rollback"] and all(e["as_hoped"] for e in endings.values())
    what = [beat["what"] for beat in told["timeline"]]
    places = [what.index(beat) for beat in STORY]
    assert places == sorted(places)
    figures = endings["promotion"]["figures"]
    assert figures["difference"]["low"] > 0, "better on what is new"
    assert figures["test"]["high"] >= 0, "not shown to be worse on the frozen test"
    assert figures["test"]["recent"]["rows"] >= 20 and figures["test"]["recent"]["high"] > 0
    rest = what[what.index("quality") :]
    places = [rest.index(beat) for beat in ("spoilt", "gate refused", "edits taken back", "turned back")]
    assert places == sorted(places)
    kept = {event["what"].partition(":")[0] for event in told["history"]}
    assert {"labels taken in", "trained", "judged", "alert", "retrain asked for", "turned back"} <= kept
    assert "refused" in kept or "prompts_contract" in endings["refusal"]["said"], "by the deployment, or before"
    [back] = [beat["said"] for beat in told["timeline"] if beat["what"] == "edits taken back"]
    assert "DVC held it all" in back, "what was trained on is got back without training"
