"""What people said of a champion's answers, from the service's own log: judged as of a time, told, kept."""
# ruff: noqa: F811 - arguments are fixtures

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.monitoring.quality_book import QualityBook
from lepton_platform.pipeline import operate
from lepton_platform.pipeline.feedback import check_quality, enough_labels
from lepton_platform.pipeline.history import history
from lepton_platform.root import MARKER
from lepton_platform.serving import log_reader
from lepton_platform.serving.compaction import compact_hour
from lepton_platform.serving.offers import deploy
from lepton_platform.serving.params import RolloutParams
from lepton_platform.serving.prediction_log import DurableLog
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment.metrics import EVALUATOR
from tests.serving.conftest import bento  # noqa: F401 - a fixture

TASK, DAY = "sentiment", timedelta(days=1)


@pytest.fixture
def settings(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    (tmp_path / MARKER).write_text(f"{TASK}: {{feedback: {{min_rows: 50}}, retrain: {{new_labels: 60}}}}\n")
    yield Settings(workspace=tmp_path)


def serve(settings: Settings, bento: Path) -> str:
    params = RolloutParams()  # pyright: ignore[reportCallIssue]
    return deploy(settings, TASK, bento=bento, test=bento, params=params, judge=EVALUATOR).deployment.tag


def answered(settings: Settings, tag: str, count: int, truth: str, texts: str = "a") -> None:
    """So many answers 'fresh', and what people said of them."""
    folder = settings.predictions_dir / TASK
    row = {"model": tag, "deployment": "1", "label": "fresh", "score": 0.9}
    predictions, feedback = DurableLog(folder, "predictions"), DurableLog(folder, "feedback")
    ids = predictions.append([{"text": f"{texts} good film number {n}", **row} for n in range(count)])
    feedback.append([{"prediction_id": identity, "label": truth} for identity in ids])
    for log in (predictions, feedback):
        log.close()


def test_a_loss_of_quality_is_told_once_kept_and_over_when_it_is_over(settings: Settings, bento: Path) -> None:
    with pytest.raises(StageFailed, match="no deployment yet"):
        check_quality(settings, TASK, DAY, datetime.now(UTC))
    tag = serve(settings, bento)
    answered(settings, tag, 40, "fresh")
    few = check_quality(settings, TASK, DAY, datetime.now(UTC))
    assert few.state == "not_judged" and few.counts.labelled == 40
    answered(settings, tag, 40, "rotten")
    answered(settings, "sentiment:of-before", 30, "fresh")
    worse_at = datetime.now(UTC)
    worse = [check_quality(settings, TASK, DAY, worse_at) for _ in range(2)][1]
    assert worse.failed and worse.estimate == 0.5 and worse.tested == 0.81 and worse.tested_low == 0.79
    assert (worse.rows, worse.counts.labelled, worse.counts.outside) == (80, 80, 30)
    [alert] = Alerts(settings, []).of(TASK, "quality")
    assert alert.seen == 2 and alert.resolved_at is None and "0.500" in alert.why
    answered(settings, tag, 400, "fresh")
    assert check_quality(settings, TASK, DAY, datetime.now(UTC)).state == "passed"
    assert Alerts(settings, []).of(TASK, "quality")[0].resolved_at is not None
    again = check_quality(settings, TASK, DAY, worse_at)
    assert (again.estimate, again.low, again.high) == (worse.estimate, worse.low, worse.high), "as of then"
    assert QualityBook(settings).of(TASK, 1)[0].as_of > worse_at.isoformat()
    told = {event.what for event in history(settings, TASK) if "quality" in event.what}
    assert told == {"served quality failed", "alert: quality", "served quality passed", "resolved: quality"}


def test_enough_labels_is_the_same_wish_whenever_one_looks(settings: Settings) -> None:
    begun = datetime.now(UTC)
    answered(settings, "sentiment:a", 59, "fresh")
    assert enough_labels(settings, TASK, begun) is None
    answered(settings, "sentiment:a", 10, "fresh")
    first = enough_labels(settings, TASK, begun)
    answered(settings, "sentiment:a", 10, "rotten")
    then = enough_labels(settings, TASK, begun)
    assert first is not None and then is not None and first.at == then.at and first.kind == "labels"
    assert enough_labels(settings, TASK, datetime.now(UTC)) is None, "what an earlier request has answered"


@pytest.mark.parametrize("what", ["labels are counted", "quality is judged", "labels are taken in"])
def test_an_hour_that_is_compacted_while_its_words_are_read_loses_none(
    settings: Settings, bento: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begun, tag = datetime.now(UTC), serve(settings, bento)
    answered(settings, tag, 80, "fresh")
    read, later = log_reader.rows_of, datetime.now(UTC) + timedelta(hours=2)

    def compacted_meanwhile(segment: Path, *given: Any) -> Any:
        monkeypatch.setattr(log_reader, "rows_of", read)
        compact_hour(settings.predictions_dir, TASK, segment.parent.name, later)
        return read(segment, *given)

    monkeypatch.setattr(log_reader, "rows_of", compacted_meanwhile)
    if what == "labels are counted":
        wish = enough_labels(settings, TASK, begun)
        assert wish is not None and wish.why.startswith("80 answers")
    elif what == "quality is judged":
        assert check_quality(settings, TASK, DAY, datetime.now(UTC)).counts.labelled == 80
    else:
        assert operate.export_labels(settings, TASK).added == 80
    assert not list(settings.predictions_dir.rglob("*.jsonl"))
