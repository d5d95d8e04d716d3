"""The stage in processes of its own: the same bits in fresh ones, after kill -9, and with several together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from lepton_platform.data.dataset import Dataset
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part
from lepton_platform.training.params import TrainParams
from lepton_platform.training.predict import predict_scores
from lepton_platform.training.train import model

ROOT = Path(__file__).parents[2]
OUTPUTS = ("model.safetensors", "config.json", "tokenizer.json", "history.json")
TRANSFORMER = {
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
    "epochs": 2,
    "batch_rows": 33,
    "learning_rate": 1e-3,
    "log_every_steps": 1,
    "checkpoint_every_s": 0,
    "micro_batches": 2,
    "network": {
        "kind": "transformer",
        "vocabulary": 200,
        "sizes": {"width": 32, "layers": 2, "heads": 2, "hidden": 64},
    },
}
MINILM = {
    "threads": 2,
    "max_steps": 2,
    "batch_rows": 8,
    "network": {"max_tokens": 24},
    "freeze": ["encoder.embeddings"],
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Reviews of a kind: what is fresh has more words of one sort."""
    folder = tmp_path_factory.mktemp("reviews")
    rng = np.random.default_rng(0)
    good, bad = ["warm", "funny", "brave", "lovely", "bright"], ["dull", "cold", "slow", "empty", "tired"]
    for split, rows in {"train": 201, "validation": 60}.items():
        labels = rng.choice(["fresh", "rotten"], rows)
        texts = [
            " ".join(rng.choice((good if label == "fresh" else bad) * 2 + good + bad, rng.integers(3, 20)))
            for label in labels
        ]
        Dataset(folder / split).write(pa.table({"text": texts, "label": labels.tolist()}))
    return folder


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory, cache_dir) -> Path:
    """The Transformer, trained in this process without a break."""
    out, scratch = (tmp_path_factory.mktemp(name) for name in ("alone", "alone-scratch"))
    model(
        dataset=dataset,
        out=out,
        params=TrainParams(**TRANSFORMER),
        model=load_part("sentiment", "model"),
        scratch=scratch,
        cache=cache_dir,
        progress=lambda *_: None,
    )
    return out


@pytest.fixture
def start(dataset, tmp_path, cache_dir):
    """Start the stage in a process of its own; a fresh ``out`` each time, ``scratch`` by name."""
    begun: list[subprocess.Popen] = []

    def start(name: str, params: dict, kill_at: int | None = None) -> tuple[subprocess.Popen, Path]:
        out, scratch = tmp_path / f"{name}-{len(begun)}", tmp_path / f"{name}-scratch"
        out.mkdir()
        scratch.mkdir(exist_ok=True)
        job = tmp_path / f"{name}-{len(begun)}.json"
        places = {"dataset": dataset, "out": out, "scratch": scratch, "cache": cache_dir}
        told = {"part": "lepton_platform.tasks.sentiment.model", "params": params, "kill_at": kill_at}
        job.write_text(json.dumps({**told, **{k: str(v) for k, v in places.items()}}))
        command = [sys.executable, str(Path(__file__).with_name("stage_process.py")), str(job)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LEPTON_DEVICE": "cpu"}
        begun.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return begun[-1], out

    yield start
    for process in begun:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen, code: int = 0) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors


def same(one: Path, other: Path) -> None:
    for name in OUTPUTS:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_seed_gives_the_same_bits_in_fresh_processes(start):
    """The default network, on two threads, both at once so that they disturb each other."""
    runs = [start(name, MINILM) for name in ("one", "other")]
    for process, _ in runs:
        ended(process)
    same(runs[0][1], runs[1][1])


def test_killed_it_ends_with_the_same_bits(start, alone):
    killed, left = start("killed", TRANSFORMER, kill_at=9)
    ended(killed, -signal.SIGKILL)
    assert not (left / "model.safetensors").exists()
    resumed, found = start("killed", TRANSFORMER)
    ended(resumed)
    same(alone, found)


def test_two_processes_learn_what_one_does_and_die_with_the_stage(start, alone, tmp_path, dataset):
    """201 rows in batches of 33: the shares are uneven, and the last batch has 3 rows."""
    together = {**TRANSFORMER, "processes": 2}
    killed, _ = start("together", together, kill_at=7)
    ended(killed, -signal.SIGKILL)
    below = json.loads((tmp_path / "together-scratch" / "below.json").read_text())
    assert len(below) == 3  # torchrun and two workers
    left = [psutil.Process(pid) for pid in below if psutil.pid_exists(pid)]
    assert not [p for p in psutil.wait_procs(left, timeout=20)[1] if p.status() != psutil.STATUS_ZOMBIE]
    resumed, found = start("together", together)
    ended(resumed)
    expected, curve = (json.loads((folder / "history.json").read_text()) for folder in (alone, found))
    assert len(curve["steps"]) == 14
    for a, b in zip(expected["steps"], curve["steps"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
    for a, b in zip(expected["evaluations"], curve["evaluations"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    result = json.loads((tmp_path / "together-scratch" / "result.json").read_text())
    assert result["processes"] == 2
    part = load_part("sentiment", "model")
    rows = Dataset(dataset / "validation").read()
    scores = predict_scores(found, rows, part, device="cpu", threads=1, batch_size=7)
    assert scores.shape == (60, 2)
    assert scores.dtype == np.float32
    labels = np.array(json.loads((found / "config.json").read_text())["labels"])
    accuracy = (labels[scores.argmax(1)] == np.array(rows["label"].to_pylist())).mean()
    assert accuracy == pytest.approx(result["validation_accuracy"])


def test_what_a_worker_refuses_the_stage_refuses(dataset, tmp_path, cache_dir):
    params = TrainParams(**{**TRANSFORMER, "processes": 2, "network": {"kind": "cnn"}})
    with pytest.raises(StageFailed, match=r"train\.network is not valid\. kind: "):
        model(
            dataset=dataset,
            out=tmp_path,
            params=params,
            model=load_part("sentiment", "model"),
            scratch=tmp_path,
            cache=cache_dir,
            progress=lambda *_: None,
        )
