"""The stage ``quality``: every figure with its interval, the gate, the same bytes, a page that runs nothing."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lepton_platform.data.dataset import Dataset
from lepton_platform.stage import StageFailed, StageResult
from lepton_platform.tasks.sentiment.metrics import EVALUATOR
from tests.training.later_stages import evaluate
from tests.training.reviews import MARKUP, ROWS, train_small, write_reviews

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("reviews"))


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory) -> Path:
    """Holds a model that has learnt."""
    return train_small(dataset, "rnn", tmp_path_factory.mktemp("learnt")).parent


@pytest.fixture(scope="module")
def result(dataset, folder) -> StageResult:
    return evaluate(dataset, folder, min_gain=-0.2)


@pytest.fixture(scope="module")
def metrics(folder, result) -> dict:
    return json.loads((folder / "quality" / "metrics.json").read_text())


def test_every_figure_has_its_interval_around_it(metrics):
    for name in ("accuracy", "baseline_accuracy", "f1", "baseline_f1", "ece", "gain"):
        low, high = metrics[f"{name}_ci95"]
        assert low <= metrics[name] <= high, name
        assert low < high, name
    assert metrics["gain"] == pytest.approx(metrics["accuracy"] - metrics["baseline_accuracy"], abs=2e-6)
    assert metrics["accuracy"] > 0.7
    assert metrics["n_test"] == ROWS["test"]
    assert metrics["resampled"] == "film_id"


def test_the_figures_are_those_of_the_predictions(folder, metrics):
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    rows = Dataset(folder / "quality" / "predictions").read()
    names = metrics["labels"]
    assert rows.column_names == [
        "id", "event_time", "film_id", "label", "predicted", "score", *(f"p_{name}" for name in names)
    ]  # fmt: skip
    true, said = rows["label"].to_pylist(), rows["predicted"].to_pylist()
    assert metrics["accuracy"] == pytest.approx(accuracy_score(true, said), abs=1e-6)
    assert metrics["f1"] == pytest.approx(f1_score(true, said, average="macro"), abs=1e-6)
    assert metrics["confusion"] == confusion_matrix(true, said, labels=names).tolist()
    chances = np.stack([rows[f"p_{name}"].to_numpy() for name in names], 1)
    assert chances.sum(1) == pytest.approx(np.ones(len(true)), abs=1e-5)
    assert rows["score"].to_numpy() == pytest.approx(chances.max(1))


def test_the_slices_of_one_dimension_are_all_rows(metrics):
    sizes: dict[str, int] = {}
    for part in metrics["slices"]:
        assert {"name", "accuracy", "accuracy_ci95", "baseline_accuracy"} <= part.keys()
        sizes[part["dimension"]] = sizes.get(part["dimension"], 0) + part["n"]
    assert len(sizes) == 2
    assert set(sizes.values()) == {ROWS["test"]}


def test_the_first_figure_is_the_one_that_decides(result):
    assert next(iter(result.metrics)) == "accuracy"
    assert result.rows == ROWS["test"]


def test_no_better_than_the_yardstick_fails_with_the_figures(dataset, tmp_path):
    """Weights as they were built, and not a step further."""
    train_small(dataset, "rnn", tmp_path, max_steps=1, learning_rate=1e-9)
    with pytest.raises(StageFailed, match=r"does not surely beat.*95 % interval -\S+ to .*quality\.min_gain") as failed:
        evaluate(dataset, tmp_path)
    figures = failed.value.details["figures"]
    assert figures["accuracy"] < figures["baseline_accuracy"]
    assert figures["gain_ci95"][1] < 0
    assert not list((tmp_path / "quality").iterdir())


def test_the_gate_is_the_lower_bound_and_not_the_estimate(dataset, folder, metrics):
    between = (metrics["gain_ci95"][0] + metrics["gain"]) / 2
    with pytest.raises(StageFailed, match="does not surely beat"):
        evaluate(dataset, folder, out="refused", min_gain=between)


def test_a_fresh_process_leaves_the_same_bytes(dataset, folder, result, tmp_path):
    (tmp_path / "model").symlink_to(folder / "model")
    command = [sys.executable, str(Path(__file__).with_name("later_stages.py")), "quality", str(dataset)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1", "LEPTON_DEVICE": "cpu"}
    done = subprocess.run([*command, str(tmp_path), '{"min_gain": -0.2}'], env=environment, capture_output=True)
    assert not done.returncode, done.stderr
    ours, theirs = folder / "quality", tmp_path / "quality"
    files = sorted(path.relative_to(ours) for path in ours.rglob("*") if path.is_file())
    assert len(files) == 4
    for name in files:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


class _Seen(HTMLParser):
    """The tags, attributes and words of a page, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words += data


def test_the_page_loads_nothing_runs_nothing_and_shows_what_was_written(folder, result):
    text = (folder / "quality" / "quality.html").read_text(encoding="utf-8")
    seen = _Seen()
    seen.feed(text)
    assert MARKUP in seen.words, "none of the reviews with markup is among the mistakes"
    assert "The <i>test-" in seen.words
    assert not seen.tags & {"script", "img", "link", "iframe", "i"}
    assert not seen.attributes & {"src", "href", "onerror", "srcset"}
    assert "url(" not in text and "@import" not in text
    for said in ("Confusion", "Reliability", "Accuracy by slice", EVALUATOR.yardstick_name, "95 %"):
        assert said in seen.words


def test_no_test_rows_are_said(dataset, folder, tmp_path):
    for split in ROWS:
        rows = Dataset(dataset / split).read()
        Dataset(tmp_path / "empty" / split).write(rows.slice(0, 0 if split == "test" else None))
    (tmp_path / "model").symlink_to(folder / "model")
    with pytest.raises(StageFailed, match="no test rows"):
        evaluate(tmp_path / "empty", tmp_path)


def test_a_label_that_the_model_never_learnt_is_named(dataset, folder, tmp_path):
    import pyarrow as pa

    for split in ROWS:
        rows = Dataset(dataset / split).read()
        if split == "test":
            labels = ["mixed", *rows["label"].to_pylist()[1:]]
            rows = rows.set_column(rows.column_names.index("label"), "label", pa.array(labels))
        Dataset(tmp_path / "strange" / split).write(rows)
    (tmp_path / "model").symlink_to(folder / "model")
    with pytest.raises(StageFailed, match=r"'?mixed'?.*rotten, fresh"):
        evaluate(tmp_path / "strange", tmp_path)
