"""The drift check on real rows: e-mails are not reviews, and reviews are; in Evidently's own words."""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lepton_platform.monitoring import painter
from lepton_platform.monitoring.counted import Counted
from lepton_platform.monitoring.drift import DriftParams, DriftResult, Window, drift, judged
from lepton_platform.monitoring.evidently_report import Pair
from lepton_platform.monitoring.painter import Painter, Place
from lepton_platform.monitoring.reference import ReferenceParams, References, held_out_answers, load, measure, save
from lepton_platform.monitoring.signals import Signals
from lepton_platform.monitoring.sketches import Sketches
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment import drift as sentiment

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARAMS = ReferenceParams(max_rows=600, windows=400)


def served(texts: list[str], seed: int, share_fresh: float = 0.58) -> pa.Table:
    """Rows of the prediction log: answers as an ordinary model gives them."""
    rng = np.random.default_rng(seed)
    ids = [hashlib.sha256(f"{seed} {i}".encode()).hexdigest() for i in range(len(texts))]
    label = np.where(rng.random(len(texts)) < share_fresh, "fresh", "rotten")
    return pa.table({"id": ids, "text": texts, "label": label, "score": 0.5 + rng.beta(5, 1, len(texts)) / 2})


_known: dict[str, Signals] = {}  # a text's own signals: the encoder is paid once a text, not once a test


def inputs_once(rows: pa.Table, downloads: Path) -> Signals:
    """What the task's part says of the rows; each text is embedded once a session."""
    texts = rows["text"].to_pylist()
    if new := [text for text in dict.fromkeys(texts) if text not in _known]:
        found = sentiment.inputs(pa.table({"text": new}), downloads)
        for i, text in enumerate(new):
            numbers, vectors = ({k: v[i : i + 1] for k, v in kind.items()} for kind in (found.numbers, found.vectors))
            _known[text] = Signals(numbers, vectors=vectors)
    return joined([_known[text] for text in texts])


def joined(rows: list[Signals]) -> Signals:
    def column(kind: str) -> dict[str, np.ndarray]:
        return {name: np.concatenate([getattr(row, kind)[name] for row in rows]) for name in getattr(rows[0], kind)}

    return Signals(column("numbers"), vectors=column("vectors"))


class Check:
    """The check as a scheduler calls it, in one workspace."""

    def __init__(self, root: Path, downloads: Path, reviews: pa.Table) -> None:
        films = sorted(set(reviews["film_id"].to_pylist()), key=lambda f: hashlib.sha256(f.encode()).digest())
        later = pc.is_in(reviews["film_id"], value_set=pa.array(films[: len(films) // 5]))
        self.trained, self.later = reviews.filter(pc.invert(later)), reviews.filter(later)
        answers = served(self.later["text"].to_pylist(), seed=0)
        predictions = answers.rename_columns({"label": "predicted"}).append_column("label", self.later["label"])
        predictions = predictions.set_column(0, "id", self.later["id"])
        self.answers = held_out_answers(predictions.drop_columns(["text"]), self.later, "film_id")
        self.root, self.downloads, self.hour = root, downloads, 0
        self.known = self.measured(self.trained, self.answers)
        self.painter = Painter()

    def part(self) -> ModuleType:
        once = ModuleType(sentiment.__name__)
        once.__dict__.update(sentiment.__dict__)
        once.inputs = inputs_once
        return once

    def measured(self, trained: pa.Table, answers: pa.Table) -> References:
        return measure(trained, answers, self.part(), PARAMS, self.downloads)

    def __call__(
        self, current: pa.Table, counted: Counted | None = None, known: References | None = None
    ) -> DriftResult:
        self.hour += 1
        rows, sketches = (current.num_rows, Sketches()) if counted is None else (counted.rows, counted.sketches)
        return drift(
            known=known or self.known,
            window=Window(current, rows, sketches),
            part=self.part(),
            params=DriftParams(),
            downloads=self.downloads,
            out=self.root / f"hour-{self.hour}",
            at=NOON + timedelta(hours=self.hour),
            workspace=self.root / "evidently",
            project="sentiment",
            painter=self.painter,
        )


@pytest.fixture(scope="module")
def check(tmp_path_factory, cache_dir, reviews) -> Iterator[Check]:
    made = Check(tmp_path_factory.mktemp("drift"), cache_dir, reviews)
    yield made
    made.painter.close()


@pytest.fixture(scope="module")
def later_reviews(check) -> list[str]:
    rows = np.random.default_rng(0).permutation(check.later.num_rows)[:300]
    return check.later["text"].take(rows).to_pylist()


@pytest.fixture(scope="module")
def passed(check, later_reviews) -> DriftResult:
    return check(served(later_reviews, seed=1))


@pytest.fixture(scope="module")
def failed(check, mails, passed) -> DriftResult:
    return check(served(mails[:150], seed=2))


def test_reviews_of_films_never_seen_pass(passed):
    assert passed.state == "passed" and passed.share == 0
    assert {"embedding_novelty", "characters", "label", "score"} <= {s.name for s in passed.signals}
    assert (passed.n_current, passed.n_reference) == (300, pytest.approx(600, abs=40))


def test_emails_fail_on_what_they_say_and_how_they_are_written(failed):
    drifted = {s.name for s in failed.signals if s.drifted}
    assert failed.failed and {"embedding_novelty", "characters", "digit_share"} <= drifted
    assert not drifted & {"label", "score"}  # their answers were drawn as the reference's were
    assert "embedding_novelty" in failed.why and failed.share == len(drifted) / len(failed.signals)


def test_windows_of_reviews_seldom_alarm_and_windows_of_emails_always_do(check, mails, later_reviews, failed):
    """Sixty windows of each kind, judged as the check judges them, without Evidently's page."""
    known, rng = check.known.inputs, np.random.default_rng(11)

    def alarms(texts: list[str], rows: int) -> int:
        whole = known.watched(inputs_once(pa.table({"text": texts}), check.downloads))
        windows = [rng.choice(len(texts), rows, replace=False) for _ in range(60)]
        signals = [Signals({name: values[window] for name, values in whole.numbers.items()}) for window in windows]
        return sum(any(one.drifted for one in judged(known, one, Sketches(), DriftParams())) for one in signals)

    assert max(alarms(later_reviews, rows) for rows in (50, 100, 200)) <= 3
    assert [alarms(mails[:150], rows) for rows in (50, 100)] == [60, 60]


def test_fifty_emails_are_enough_and_forty_nine_are_not_judged(check, mails, failed):
    assert check(served(mails[:50], seed=3)).failed
    few = check(served(mails[:49], seed=3))
    assert few.state == "not_judged" and not few.failed and "49 rows" in few.why


def test_answers_that_change_are_drift_though_the_texts_do_not(check, later_reviews, failed):
    found = check(served(later_reviews[:200], seed=4, share_fresh=0.05))
    assert found.failed and {s.name for s in found.signals if s.drifted} == {"label"}


def test_a_reference_is_kept_as_the_same_bytes_and_read_back(check, tmp_path):
    again = check.measured(check.trained, check.answers)
    for folder, known in (("one", check.known), ("two", again)):
        save(known, tmp_path / folder)
    for name in ("inputs.parquet", "answers.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    read = load(tmp_path / "one")
    assert read.inputs.thresholds == check.known.inputs.thresholds and read.inputs.neighbours == PARAMS.neighbours
    for found, known in ((read.inputs.signals, again.inputs.signals), (read.answers.signals, again.answers.signals)):
        for kind in ("numbers", "classes", "vectors"):
            kept, made = getattr(found, kind), getattr(known, kind)
            assert kept.keys() == made.keys() and all((kept[name] == made[name]).all() for name in made)


def test_what_is_no_reference_is_said(tmp_path):
    with pytest.raises(StageFailed, match=r"no reference of the drift check.*Run the stage"):
        load(tmp_path)
    (tmp_path / "inputs.parquet").write_bytes(b"PAR1")
    with pytest.raises(StageFailed, match="no reference of the drift check"):
        load(tmp_path)


def test_the_same_rows_get_the_same_verdict(check, mails, failed):
    again = check(served(mails[:150], seed=2))
    assert again.signals == failed.signals


def test_a_reference_that_is_too_small_judges_nothing(check, later_reviews, passed):
    small = check.measured(check.trained.slice(0, 90), check.answers)
    found = check(served(later_reviews[:60], seed=6), known=small)
    assert found.state == "not_judged" and "90 rows" in found.why


def test_few_held_out_answers_are_said_and_the_inputs_judged_all_the_same(check, mails, failed):
    found = check(served(mails[:60], seed=7), known=check.measured(check.trained, check.answers.slice(0, 60)))
    assert found.failed and "answers were not judged" in found.why
    assert not {"label", "score"} & {s.name for s in found.signals}


@pytest.mark.parametrize("kept", [[], ["film_id"]])
def test_held_out_answers_are_named_as_the_log_names_them_and_have_their_group_once(kept):
    rows = pa.table({"id": ["a", "b"], "label": ["fresh", "rotten"], "film_id": ["f", "g"]})
    columns = {"id": ["b", "a"], "label": ["rotten", "fresh"], "predicted": ["fresh", "fresh"], "score": [0.6, 0.9]}
    columns |= {"film_id": ["g", "f"]} if kept else {}
    found = held_out_answers(pa.table(columns), rows, "film_id")
    assert sorted(found.column_names) == ["film_id", "id", "label", "score"]
    assert found.to_pylist()[0] == {"id": "b", "label": "fresh", "score": 0.6, "film_id": "g"}


def test_the_report_says_what_the_verdict_says(failed):
    report = json.loads(Path(failed.json).read_text())
    by_column = {m["config"]["column"]: m["value"] for m in report["metrics"] if "column" in m["config"]}
    assert by_column == {s.name: pytest.approx(s.distance) for s in failed.signals}
    page = Path(failed.html).read_text(encoding="utf-8")
    assert "embedding_novelty" in page and "Kolmogorov-Smirnov distance" in page
    assert json.loads((Path(failed.html).parent / "result.json").read_text())["state"] == "failed"


def test_sketches_of_all_rows_speak_where_they_have_seen_more_than_the_sample(check, later_reviews, passed):
    """The sample's answers are ordinary; those of the forty thousand rows that it stands for are not."""
    labels = np.array(["fresh"] * 38_000 + ["rotten"] * 2_000)
    rows = pa.table(
        {"id": [str(n) for n in range(40_000)], "label": labels, "score": [0.9] * 40_000, "text": ["Fine."] * 40_000}
    )
    counted = Counted(300)
    counted.update(rows, sentiment)
    found = check(served(later_reviews, seed=1), counted)
    by_name = {one.name: one for one in found.signals}
    assert found.failed and (found.n_served, found.n_current) == (40_000, 300)
    assert by_name["label"].drifted and by_name["score"].drifted and by_name["label"].rows == 40_000
    assert 2_000 < by_name["words"].rows < 3_000 and by_name["embedding_novelty"].rows == 300
    told = json.loads(Path(found.json).read_text())
    shown = {m["config"]["column"]: m["value"] for m in told["metrics"] if "column" in m["config"]}
    assert shown["label"] == pytest.approx(by_name["label"].distance)
    page = Path(found.html).read_text("utf-8")
    assert "The charts show 300 of 40,000 rows; distances by sketches: " in page and "label from 40,000" in page


def test_a_page_that_cannot_be_drawn_takes_no_verdict_with_it(check, later_reviews, tmp_path, caplog):
    """By a process that was killed, and by Evidently's refusal; the next page is drawn by the process of the one before."""
    dead, before = Painter(), check.painter
    os.kill(dead.pid, signal.SIGKILL)
    check.painter = dead
    found = check(served(later_reviews[:60], seed=9))
    check.painter = before
    dead.close()
    assert found.state == "passed" and found.html is None and "page could not be drawn" in caplog.text
    kept = json.loads((check.root / f"hour-{check.hour}" / "result.json").read_text())
    assert kept["state"] == "passed" and kept["html"] is None
    pair = Pair(Signals({"a": np.ones(3)}), Signals({"a": np.ones(3)}), {}, {})
    place = Place(str(tmp_path / "page.html"), str(tmp_path / "page.json"))
    with pytest.raises(OSError, match=r"could not be drawn: \w+Error"):
        check.painter.draw([pair], place, at=NOON, metadata={})
    assert check(served(later_reviews[:60], seed=9)).html


def test_a_page_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(painter, "TIMEOUT_S", 0.5)
    pair = Pair(Signals({"a": np.ones(3)}), Signals({"a": np.ones(3)}), {}, {})
    with Painter() as hanging:
        os.kill(hanging.pid, signal.SIGSTOP)
        with pytest.raises(OSError, match="could not be drawn"):
            hanging.draw([pair], Place(str(tmp_path / "page.html"), str(tmp_path / "page.json")), at=NOON, metadata={})


def test_evidently_finds_the_runs_in_its_workspace(check, failed):
    from evidently.ui.workspace import Workspace

    opened = Workspace(str(check.root / "evidently"))
    [project] = opened.list_projects()
    assert project.name == "sentiment"
    dashboard = project.dashboard.model()
    assert [tab.panels for tab in dashboard.tabs] == [[panel.id for panel in dashboard.panels]]
    stored = opened.get_run(project.id, failed.report_id)
    assert stored.metadata["n_current"] == "150" and stored.name == "failed: 150 rows"
    counted = [m for m in stored.metric_results.values() if type(m).__name__ == "CountValue"]
    assert counted[0].count.value == sum(s.drifted for s in failed.signals)
    failing = [t for m in stored.metric_results.values() for t in m.tests if t.status.value == "FAIL"]
    assert len(failing) == 1 + sum(s.drifted for s in failed.signals)  # and one for their count


def test_old_reports_make_room(check, later_reviews, passed, monkeypatch):
    from evidently.ui.workspace import Workspace

    monkeypatch.setattr("lepton_platform.monitoring.drift.KEPT_REPORTS", 2)
    newest = check(served(later_reviews[:50], seed=8)).report_id
    opened = Workspace(str(check.root / "evidently"))
    kept = [str(run) for run in opened.list_runs(opened.list_projects()[0].id)]
    assert len(kept) == 2 and newest in kept
