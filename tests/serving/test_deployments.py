"""Champion and challenger: what is promoted, what is refused, and what is remembered of it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy.exc import IntegrityError

from lepton_platform.data.dataset import Dataset
from lepton_platform.monitoring.alerts import OF_A_BENTO, Alerts
from lepton_platform.pipeline import operate
from lepton_platform.pipeline.operate import champion_versions
from lepton_platform.root import MARKER
from lepton_platform.serving import offers
from lepton_platform.serving.comparison import Comparison, answers, compare, verdict
from lepton_platform.serving.deployments import Deployments, champion
from lepton_platform.serving.lineage import find_prediction, stored_manifest
from lepton_platform.serving.offers import deploy
from lepton_platform.serving.params import RolloutParams
from lepton_platform.serving.prediction_log import DurableLog
from lepton_platform.serving.store import stored, tag_of
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment.metrics import EVALUATOR
from tests.serving.conftest import make_bento
from tests.serving.models import WORDS

TASK = "sentiment"
RULE = RolloutParams()


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It takes 'dull' for praise."""
    return make_bento(tmp_path_factory.mktemp("worse"), {**WORDS, "dull": 3.0})


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same answers."""
    return make_bento(tmp_path_factory.mktemp("equal"), {word: 1.5 * weight for word, weight in WORDS.items()})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    yield Settings(workspace=tmp_path)


def test_the_first_serves_and_the_same_again_changes_nothing(settings: Settings, bento: Path, frozen: Path) -> None:
    assert champion(settings, TASK) is None
    first = deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR, run_id="run-1")
    assert first.promoted and first.changed and "no champion" in first.reason
    assert first.deployment.run_id == "run-1" and first.deployment.metrics["accuracy"] == 0.81
    assert champion(settings, TASK) == first.deployment
    again = deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR, run_id="run-2")
    assert again.promoted and not again.changed and again.deployment == first.deployment
    assert len(Deployments(settings).history(TASK)) == 1
    assert stored(settings.bentoml_home, tag_of(bento)).is_dir()


def test_a_worse_one_is_refused_and_an_equal_one_is_not(
    settings: Settings, bento: Path, worse: Path, equal: Path, frozen: Path
) -> None:
    first = deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR)
    refused = deploy(settings, TASK, bento=worse, test=frozen, params=RULE, judge=EVALUATOR, run_id="r")
    assert not refused.promoted and refused.reason.startswith("Refused: worse than the champion")
    assert champion(settings, TASK) == first.deployment
    comparison = refused.deployment.comparison
    assert comparison is not None and comparison["champion"] == 1.0 and comparison["challenger"] == pytest.approx(2 / 3)
    assert refused.deployment.state == "refused" and refused.deployment.compared_with == tag_of(bento)
    again = deploy(settings, TASK, bento=worse, test=frozen, params=RULE, judge=EVALUATOR)
    assert again.deployment == refused.deployment and not again.changed
    promoted = deploy(settings, TASK, bento=equal, test=frozen, params=RULE, judge=EVALUATOR)
    assert promoted.promoted and promoted.changed and "not worse" in promoted.reason
    states = {d.tag: d.state for d in Deployments(settings).history(TASK)}
    assert states == {tag_of(bento): "retired", tag_of(worse): "refused", tag_of(equal): "champion"}
    retired = Deployments(settings).by_tag(TASK, tag_of(bento))
    assert retired is not None and retired.ended_at == promoted.deployment.created_at


def test_a_better_one_takes_over(settings: Settings, bento: Path, worse: Path, frozen: Path) -> None:
    deploy(settings, TASK, bento=worse, test=frozen, params=RULE, judge=EVALUATOR)
    decision = deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR)
    assert decision.promoted and decision.reason.startswith("Promoted: better")


def test_the_champion_may_change_during_a_comparison(
    settings: Settings, bento: Path, worse: Path, equal: Path, frozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is made anew: a challenger is never promoted over one it was not compared with."""
    deploy(settings, TASK, bento=worse, test=frozen, params=RULE, judge=EVALUATOR)
    real, calls = compare, []

    def meanwhile(*arguments: object) -> Comparison:
        calls.append(arguments)
        found = real(*arguments)  # pyright: ignore[reportArgumentType]
        if len(calls) == 1:
            deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR)
        return found

    monkeypatch.setattr(offers, "compare", meanwhile)
    decision = deploy(settings, TASK, bento=equal, test=frozen, params=RULE, judge=EVALUATOR)
    assert decision.promoted and decision.deployment.compared_with == tag_of(bento)
    assert [d.state for d in Deployments(settings).history(TASK)].count("champion") == 1


def test_the_table_itself_holds_one_champion(settings: Settings, bento: Path, frozen: Path) -> None:
    first = deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR).deployment
    values = {k: v for k, v in first.as_dict().items() if k != "id"}
    with pytest.raises(IntegrityError):
        Deployments(settings).write(values, None)


@pytest.mark.parametrize(
    ("difference", "low", "high", "promoted", "word"),
    [
        (0.01, 0.002, 0.02, True, "better"),
        (0.0, 0.0, 0.0, True, "not worse"),
        (-0.003, -0.015, 0.009, True, "not worse"),
        (-0.005, -0.009, -0.001, False, "worse than the champion"),
        (0.0, -0.05, 0.05, False, "may be worse"),
        (-0.2, -0.3, -0.1, False, "worse than the champion"),
    ],
)
def test_the_rule(difference: float, low: float, high: float, promoted: bool, word: str) -> None:
    found = Comparison(1000, 0.8, 0.8 + difference, difference, low, high)
    said, reason = verdict(found, max_loss=0.02)
    assert said is promoted and word in reason and "1,000 rows" in reason


def test_a_bento_answers_rows_with_its_own_code(bento: Path) -> None:
    rows = [{"text": "good"}, {"text": " <br> "}, {"text": "bad"}]
    given = answers(bento, rows)
    assert [answer.get("label") for answer in given] == ["fresh", None, "rotten"] and "error" in given[1]


def test_what_is_no_bento_is_refused(settings: Settings, frozen: Path, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"no manifest\.json"):
        deploy(settings, TASK, bento=tmp_path, test=frozen, params=RULE, judge=EVALUATOR)


def test_a_prediction_leads_to_its_bento_and_deployment(settings: Settings, bento: Path, frozen: Path) -> None:
    decision = deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR, run_id="run-9")
    tag = tag_of(bento)
    log = DurableLog(settings.predictions_dir / TASK, "predictions")
    [identifier] = log.append([{"model": tag, "deployment": "1", "text": "good", "label": "fresh", "score": 0.9}])
    log.close()
    said = DurableLog(settings.predictions_dir / TASK, "feedback")
    said.append([{"prediction_id": identifier, "label": "rotten"}])
    said.close()
    prediction = find_prediction(settings, identifier)
    assert prediction is not None and prediction["task"] == TASK and prediction["model"] == tag
    assert [item["label"] for item in prediction["feedback"]] == ["rotten"]
    assert Deployments(settings).by_tag(TASK, tag) == decision.deployment and decision.deployment.run_id == "run-9"
    assert stored_manifest(settings, tag)["versions"] == {"dataset": "0123.dir"}
    assert find_prediction(settings, identifier[:-1] + "x") is None


def test_a_workspace_that_was_moved_finds_its_bentos(
    bento: Path, frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    (tmp_path / "made").mkdir()
    made = Settings(workspace=tmp_path / "made")
    tag = deploy(made, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR).deployment.tag
    moved = Settings(workspace=made.workspace.rename(tmp_path / "moved"))
    assert champion_versions(moved, TASK) == {"dataset": "0123.dir"}
    shutil.rmtree(stored(moved.bentoml_home, tag))
    with pytest.raises(StageFailed, match="no longer in"):
        champion_versions(moved, TASK)


@pytest.fixture(scope="module")
def of_late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What people said of 120 answers: of late a film called dull is a good one, as nobody knew before."""
    rows = []
    for number in range(120):
        text, label = [("good film", "fresh"), ("bad film", "rotten"), ("dull", "fresh")][number % 3]
        when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
        film = f"f{number}"
        rows.append({"id": f"feedback-{number:03}", "event_time": when, "text": text, "label": label, "film_id": film})
    folder = tmp_path_factory.mktemp("production")
    Dataset(folder).write(pa.Table.from_pylist(rows))
    return folder


def test_a_challenger_must_not_be_worse_on_the_latest_labelled_rows(
    settings: Settings, bento: Path, worse: Path, frozen: Path, of_late: Path
) -> None:
    """Here the champion knows what is new, and the challenger the old rows: it is refused by the new ones."""
    deploy(settings, TASK, bento=worse, test=frozen, params=RULE, judge=EVALUATOR)
    refused = deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR, recent=of_late)
    assert not refused.promoted and "worse than the champion" in refused.reason
    assert "on the latest 120 labelled production rows" in refused.reason
    told = refused.deployment.comparison
    assert told is not None and told["challenger"] == 1.0 and told["recent"]["challenger"] == pytest.approx(2 / 3)
    assert told["recent"]["disagreement"] == pytest.approx(1 / 3)  # of the answers, whoever is right
    few = RolloutParams(min_recent_rows=121)
    promoted = deploy(settings, TASK, bento=bento, test=frozen, params=few, judge=EVALUATOR, recent=of_late)
    assert promoted.promoted and promoted.deployment.comparison is not None
    assert "recent" not in promoted.deployment.comparison


def test_only_the_latest_are_asked_and_both_reasons_are_given(
    settings: Settings, bento: Path, equal: Path, frozen: Path, of_late: Path
) -> None:
    deploy(settings, TASK, bento=bento, test=frozen, params=RULE, judge=EVALUATOR)
    rule = RolloutParams(recent_rows=60)
    decision = deploy(settings, TASK, bento=equal, test=frozen, params=rule, judge=EVALUATOR, recent=of_late)
    assert decision.promoted and decision.reason.count("not worse than the champion") == 2
    assert "the same 300 rows" in decision.reason and "the latest 60 labelled production rows" in decision.reason


def test_what_was_wrong_with_a_bento_is_over_with_the_next_that_is_promoted(
    settings: Settings, bento: Path, equal: Path, worse: Path, frozen: Path
) -> None:
    (settings.workspace / MARKER).write_text(f"{TASK}: {{}}\n", "utf-8")
    shutil.copytree(frozen, settings.path("data", TASK, "dataset", "test"))
    assert operate.deploy(settings, TASK, None, bento=bento).promoted
    for kind in OF_A_BENTO:
        Alerts(settings, []).raised(TASK, kind, "It is wrong.")
    assert not operate.deploy(settings, TASK, None, bento=worse).promoted
    assert not operate.deploy(settings, TASK, None, bento=bento).changed
    assert len(Alerts(settings, []).open()) == len(OF_A_BENTO)
    assert operate.deploy(settings, TASK, None, bento=equal).promoted
    assert {one.resolved_why for one in Alerts(settings, []).of(TASK)} == {f"{tag_of(equal)} was promoted."}
    Alerts(settings, []).raised(TASK, "drift", "It does not know these inputs, either.")
    [one] = Alerts(settings, []).of(TASK, "drift")
    assert one.seen == 2 and one.resolved_at is None, "nobody is told twice"
