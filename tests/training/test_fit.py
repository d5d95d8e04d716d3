"""The loop, on points in the plane: the same curve however a batch is computed, the best weights kept."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lepton_platform.data.dataset import Dataset
from lepton_platform.stage import StageFailed
from lepton_platform.training.devices import choose_precision
from lepton_platform.training.params import TrainParams
from lepton_platform.training.train import model
from tests.training import blobs

BASE = {
    "precision": "float32",
    "threads": 1,
    "epochs": 4,
    "batch_rows": 33,
    "learning_rate": 0.02,
    "head_learning_rate_factor": 1.0,
    "log_every_steps": 1,
    "patience": None,
    "network": {"dropout": 0.3},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("blobs")
    for n, (split, rows) in enumerate({"train": 301, "validation": 120, "test": 50}.items()):
        Dataset(folder / split).write(blobs.table(rows, n))
    return folder


@pytest.fixture
def run(dataset, tmp_path):
    def run(name="run", stop_at=None, scratch=None, part=blobs, **changes):
        out, scratch = tmp_path / name, scratch or tmp_path / f"{name}-scratch"
        out.mkdir(exist_ok=True)
        scratch.mkdir(exist_ok=True)
        seen = []

        def progress(done, total, values=None):
            seen.append((done, total, dict(values or {})))
            if done == stop_at:
                raise KeyboardInterrupt

        params = TrainParams(**{**BASE, **changes})
        result = model(
            dataset=dataset, out=out, params=params, model=part, scratch=scratch, cache=tmp_path, progress=progress
        )
        return out, result, seen

    return run


def history(out: Path) -> dict:
    return json.loads((out / "history.json").read_text())


def losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in history(out)["steps"]]


def test_it_learns_and_says_so(run):
    out, result, seen = run()
    assert result.metrics["validation_accuracy"] > 0.75
    assert result.rows == 301
    assert seen[-1][:2] == (40, 40)
    assert {"loss", "rows_per_s", "validation_accuracy", "learning_rate"} <= seen[-1][2].keys()
    assert result.metadata["parameters"] == 82
    assert result.metadata["learning_curves_png"].startswith("iVBORw0KGgo")
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "curves", "history.json", "model.safetensors"]
    assert [e["step"] for e in history(out)["evaluations"]] == [10, 20, 30, 40]
    curve = (out / "curves" / "validation.csv").read_text().splitlines()
    last = history(out)["evaluations"][-1]
    assert curve[0] == "step,loss,accuracy" and len(curve) == 5
    assert curve[-1] == f"40,{last['loss']},{last['accuracy']}"
    assert (out / "curves" / "training.csv").read_text().count("\n") == 1 + len(history(out)["steps"])
    assert "_s" not in (out / "history.json").read_text().replace("_step", "").replace("stopped", "")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_micro_batches_change_no_loss(run, dropout):
    """Uneven ones: 33 rows in 2, the last batch's 4 in 2; with 5 parts the last batch leaves one empty."""
    one, _, _ = run("two", micro_batches=2, network={"dropout": dropout})
    other, _, _ = run("five", micro_batches=5, network={"dropout": dropout})
    difference = max(abs(a - b) for a, b in zip(losses(one), losses(other), strict=True))
    assert difference < 1e-5 if not dropout else difference > 1e-5  # each part draws its own dropout


@pytest.mark.parametrize("loaders", [0, 1, 2])
def test_stopped_anywhere_it_ends_with_the_same_bytes(run, tmp_path, loaders):
    """Whoever makes the batches; what is drawn for them is the same."""
    drawn = {"network": {"dropout": 0.3, "jitter": 0.5}, "micro_batches": 2}
    whole, _, _ = run("whole", **drawn)
    for stop_at in (1, 10, 27):
        scratch = tmp_path / f"stopped-{stop_at}"
        options = {**drawn, "scratch": scratch, "checkpoint_every_s": 0, "loader_processes": loaders}
        with pytest.raises(KeyboardInterrupt):
            run("stopped", stop_at=stop_at + 1, **options)
        again, _, seen = run("stopped", **options)
        assert seen[0][0] == stop_at + 1 or seen[0][0] == stop_at + 2  # not from the start
        for name in (
            "model.safetensors",
            "history.json",
            "config.json",
            "curves/training.csv",
            "curves/validation.csv",
        ):
            assert (again / name).read_bytes() == (whole / name).read_bytes(), (stop_at, name)


def test_another_learning_rate_starts_afresh(run, tmp_path):
    scratch = tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt):
        run("a", stop_at=20, scratch=scratch, checkpoint_every_s=0)
    _, _, seen = run("b", scratch=scratch, learning_rate=0.01)
    assert seen[0][0] == 1


def test_the_best_weights_are_kept_and_the_rest_is_spared(run):
    """So fast a rate overshoots: the first evaluations are the best ones."""
    out, _, _ = run(epochs=30, learning_rate=0.3, decay="constant", patience=3, network={"dropout": 0.0})
    found = history(out)
    evaluations = {e["step"]: e["loss"] for e in found["evaluations"]}
    assert found["stopped_early"]
    assert len(evaluations) < 30
    assert found["best_step"] == min(evaluations, key=evaluations.__getitem__)
    assert max(evaluations) == found["best_step"] + 30
    network = blobs.LEARNER.build(json.loads((out / "config.json").read_text())).eval()
    network.load_state_dict(load_file(out / "model.safetensors"))
    rows = blobs.LEARNER.encode({}, out, blobs.table(120, 1)).batch(range(120))
    with torch.inference_mode():
        loss = blobs.LEARNER.losses(network(**rows.inputs), rows, 0.0).mean().item()
    assert loss == pytest.approx(min(evaluations.values()), abs=1e-6)


def test_frozen_parameters_stay_as_they_were_built(run):
    out, result, _ = run(freeze=["body"])
    torch.manual_seed(7)
    built = blobs.LEARNER.build({"dropout": 0.0}).state_dict()
    trained = load_file(out / "model.safetensors")
    assert torch.equal(trained["body.0.weight"], built["body.0.weight"])
    assert not torch.equal(trained["head.weight"], built["head.weight"])
    assert result.metadata["trained_parameters"] == 34


@pytest.mark.parametrize("stop_at", [3, 20, 30])
def test_what_is_frozen_thaws_when_it_is_time_killed_or_not(run, tmp_path, stop_at):
    """Of forty steps the body takes part in the last twenty."""
    plan = {"freeze": ["body"], "thaw_fraction": 0.5, "best_by": "last"}
    out, _, _ = run("half", stop_at=None, **plan, max_steps=20)
    scratch = tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop_at=stop_at, scratch=scratch, checkpoint_every_s=0, **plan)
    stopped, _, _ = run("stopped", scratch=scratch, checkpoint_every_s=0, **plan)
    whole, _, _ = run("whole", **plan)
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    torch.manual_seed(7)
    built = blobs.LEARNER.build({"dropout": 0.3}).state_dict()
    never, _, _ = run("never", freeze=["body"])
    assert torch.equal(load_file(never / "model.safetensors")["body.0.weight"], built["body.0.weight"])
    for thawed in (out, whole):
        assert not torch.equal(load_file(thawed / "model.safetensors")["body.0.weight"], built["body.0.weight"])


def test_a_cpu_computes_in_float32_whatever_it_can_do():
    assert choose_precision("auto", torch.device("cpu")).dtype is None


def test_every_evaluation_that_was_asked_for(run):
    out, _, _ = run(evaluations_per_epoch=3, epochs=2, max_steps=17)
    assert [e["step"] for e in history(out)["evaluations"]] == [4, 7, 10, 14, 17]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_too(run, precision):
    out, result, _ = run(precision=precision)
    assert result.metrics["validation_accuracy"] > 0.75
    assert load_file(out / "model.safetensors")["head.weight"].dtype == torch.float32


def test_divergence_is_told_with_a_way_out(run):
    with pytest.raises(StageFailed, match=r"diverged: the loss at step \d+ is (nan|inf).*Lower train\.learning_rate"):
        run(optimizer="sgd", learning_rate=1e30, clip_norm=None)


def test_an_unknown_measure_is_told_with_the_known_ones(run):
    with pytest.raises(StageFailed, match=r"'f1' is not measured\. There are: loss, accuracy"):
        run(best_by="f1", max_steps=1)


def test_the_best_by_accuracy_is_the_highest(run):
    out, _, _ = run(best_by="accuracy")
    found = history(out)
    best = next(e for e in found["evaluations"] if e["step"] == found["best_step"])
    assert best["accuracy"] == max(e["accuracy"] for e in found["evaluations"])


def test_fewer_rows_on_demand_are_a_function_of_the_seed(run):
    _, result, seen = run(max_train_rows=66, epochs=1)
    assert result.rows == 66
    assert seen[-1][1] == 2


def test_an_empty_split_is_said(tmp_path, run, dataset):
    empty = tmp_path / "empty"
    for split in ("train", "validation"):
        Dataset(empty / split).write(blobs.table(3, 0).slice(0, 0))
    params = TrainParams(**BASE)
    with pytest.raises(StageFailed, match=r"split 'train' .* is empty"):
        model(
            dataset=empty,
            out=tmp_path,
            params=params,
            model=blobs,
            scratch=tmp_path,
            cache=tmp_path,
            progress=lambda *_: None,
        )
