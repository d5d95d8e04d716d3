"""A frozen encoder: asked once a row, and what is learnt is what it would be if it were asked at every step."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lepton_platform.models.text_classifier import TextClassifier
from lepton_platform.tasks.sentiment.model import LEARNER
from lepton_platform.training.params import TrainParams
from lepton_platform.training.train import model
from tests.training.reviews import ROWS, SIZES, write_reviews

PARAMS = {
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
    "epochs": 3,
    "batch_rows": 32,
    "learning_rate": 5e-3,
    "freeze": ["encoder"],
    "checkpoint_every_s": 0,
    "log_every_steps": 1,
    "network": {
        "kind": "transformer",
        "vocabulary": 120,
        "max_tokens": 48,
        "sizes": SIZES["transformer"],
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
}


@dataclass(frozen=True)
class Counting(TextClassifier):
    """``seen``: how many rows each pass through the encoder had."""

    seen: list[int] = field(default_factory=list)

    def build(self, config: Any) -> Any:
        network = super().build(config)
        network.encoder.register_forward_hook(lambda _, inputs, __: self.seen.append(len(inputs[0])))
        return network


@dataclass(frozen=True)
class AtEveryStep(Counting):
    settled = None  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("reviews"))


def learner(kind: type[Counting]) -> Any:
    return kind(content=LEARNER.content, target=LEARNER.target, labels=LEARNER.labels)


def train(
    dataset: Path, folder: Path, part: Any, stop_at: int | None = None, **changes: Any
) -> dict[str, torch.Tensor]:
    out, scratch = folder / "model", folder / "scratch"
    for one in (out, scratch):
        one.mkdir(parents=True, exist_ok=True)

    def progress(done: int, total: int, values: Any = None) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    model(
        dataset=dataset,
        out=out,
        params=TrainParams.model_validate({**PARAMS, **changes}),
        model=SimpleNamespace(LEARNER=part, __name__="part"),  # pyright: ignore[reportArgumentType]
        scratch=scratch,
        cache=folder,
        progress=progress,
    )
    return load_file(out / "model.safetensors")


def test_a_frozen_encoder_is_asked_once_a_row_and_the_same_is_learnt(dataset: Path, tmp_path: Path) -> None:
    once, often = learner(Counting), learner(AtEveryStep)
    found, wanted = train(dataset, tmp_path / "once", once), train(dataset, tmp_path / "often", often)
    assert sum(once.seen) == ROWS["train"] + ROWS["validation"]
    assert sum(often.seen) == 3 * sum(once.seen)
    assert found.keys() == wanted.keys()
    for name, weights in wanted.items():
        torch.testing.assert_close(found[name], weights, atol=1e-4, rtol=1e-4)
    assert found["head.weight"].abs().max() > 0.1, "it has learnt something"


def test_killed_and_taken_up_again_the_bytes_are_the_same(dataset: Path, tmp_path: Path) -> None:
    train(dataset, tmp_path / "whole", LEARNER)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "killed", LEARNER, stop_at=20)
    train(dataset, tmp_path / "killed", LEARNER)
    whole, killed = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


@pytest.mark.parametrize("changes", [{"freeze": ["encoder.embeddings"]}, {"thaw_fraction": 0.5}])
def test_an_encoder_that_learns_is_asked_at_every_step(dataset: Path, tmp_path: Path, changes: dict) -> None:
    part = learner(Counting)
    train(dataset, tmp_path, part, **changes)
    assert sum(part.seen) == 3 * (ROWS["train"] + ROWS["validation"])
