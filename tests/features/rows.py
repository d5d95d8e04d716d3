"""A few reviews as the stages clean and contract leave them, and their features without the costly embedding."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from lepton_platform.data.dataset import Dataset
from lepton_platform.features.materialize import FeaturesParams, features
from lepton_platform.stage import StageResult
from lepton_platform.tasks.sentiment import preprocess

CHEAP = ["text_statistics", "film_history"]
START = datetime(2020, 1, 1, tzinfo=UTC)
COLUMNS = ("id", "event_time", "text", "label", "film_id")


def quiet(done: int, total: int, values: object = None) -> None:
    """Nobody watches."""


def reviews(count: int, films: int = 40) -> pa.Table:
    """``count`` reviews an hour apart, of ``films`` films in turn; labels follow no turn."""
    times = pa.array([START + timedelta(hours=n) for n in range(count)], pa.timestamp("us", "UTC"))
    texts = [f"Review {n}: it isn't {'very ' * (n % 4)}good, it is {n}!" for n in range(count)]
    labels = [("fresh", "rotten")[(n * n // 7) % 2] for n in range(count)]
    ids = [f"r{n}" for n in range(count)]
    return pa.table(
        dict(zip(COLUMNS, (ids, times, texts, labels, [f"f{n % films}" for n in range(count)]), strict=True))
    )


def write_clean(folder: Path, rows: pa.Table) -> None:
    """``folder/clean`` and the verdict ``folder/contract`` as the stages leave them."""
    Dataset(folder / "clean" / "rows").write(rows, rows_per_shard=70)
    (folder / "contract").mkdir()
    (folder / "contract" / "result.json").write_text(json.dumps({"success": True}))


def make_features(folder: Path, cache: Path, name: str = "features", **params: object) -> StageResult:
    """Run the stage features on what ``write_clean`` left; the cheap views unless others are asked for."""
    (folder / name).mkdir()
    return features(
        clean=folder / "clean",
        contract=folder / "contract",
        out=folder / name,
        params=FeaturesParams.model_validate({"views": CHEAP, **params}),
        preprocess=preprocess,
        cache=cache,
        progress=quiet,
    )
