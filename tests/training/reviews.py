"""Reviews made of few words, for small real networks: what is fresh has more words of one sort.

Some hold markup, as what strangers write does.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from lepton_platform.data.dataset import Dataset
from lepton_platform.tasks import load_part
from lepton_platform.training.params import TrainParams
from lepton_platform.training.train import model

ROWS = {"train": 400, "validation": 60, "test": 240}
FILMS = 40  # in each split
MARKUP = '<img src="x" onerror="alert(1)"> & "so on"'
GOOD, BAD = ["warm", "funny", "brave", "lovely", "bright"], ["dull", "cold", "slow", "empty", "tired"]
SIZES = {
    "rnn": {"width": 16, "hidden": 16},
    "transformer": {"width": 32, "layers": 2, "heads": 2, "hidden": 64},
}
FIRST = datetime(2025, 1, 1, tzinfo=UTC)


def write_reviews(folder: Path) -> Path:
    """The training set's three splits; the films of one are in no other."""
    rng = np.random.default_rng(0)
    for number, (split, rows) in enumerate(ROWS.items()):
        films = [f"{split}-{n}" for n in rng.integers(0, FILMS, rows)]
        labels = rng.choice(["fresh", "rotten"], rows).tolist()
        table = {
            "id": [f"{split}-{n:04d}" for n in range(rows)],
            "event_time": pa.array(
                [FIRST + timedelta(days=100 * number, hours=n) for n in range(rows)], pa.timestamp("us", "UTC")
            ),
            "text": [_text(rng, label, n) for n, label in enumerate(labels)],
            "label": labels,
            "film_id": films,
            "film": [f"The <i>{film}</i>" for film in films],
        }
        Dataset(folder / split).write(pa.table(table))
    return folder


def _text(rng: np.random.Generator, label: str, number: int) -> str:
    words = (GOOD if label == "fresh" else BAD) * 2 + GOOD + BAD
    said = " ".join(rng.choice(words, rng.integers(2, 16)))
    return f"{said} {MARKUP}" if number % 3 == 0 else said


def train_small(dataset: Path, kind: str, folder: Path, **changes: object) -> Path:
    """A small network of that kind that has learnt from the reviews; returns its folder."""
    out, scratch = folder / "model", folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()
    told = {
        "device": "cpu",
        "precision": "float32",
        "epochs": 5,
        "batch_rows": 32,
        "learning_rate": 5e-3,
        "head_learning_rate_factor": 1.0,
        "network": {"kind": kind, "vocabulary": 120, "max_tokens": 48, "sizes": SIZES[kind]},
    }
    model(
        dataset=dataset,
        out=out,
        params=TrainParams.model_validate({**told, **changes}),
        model=load_part("sentiment", "model"),
        scratch=scratch,
        cache=folder,
        progress=lambda *_: None,
    )
    return out
