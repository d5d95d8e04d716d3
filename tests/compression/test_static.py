"""Static int8: convolutions in integers, boxes in pixels left as they are, the same bytes twice."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from lepton_platform.compression.compress import CompressParams, compressed
from lepton_platform.compression.export import export, opset_of
from lepton_platform.compression.quantise import quantise_static
from lepton_platform.compression.session import Session
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.images import decode
from lepton_platform.models.detection import Detection
from lepton_platform.stage import StageFailed, StageResult
from lepton_platform.training.detection import BoxEvaluation
from lepton_platform.training.params import TrainParams
from lepton_platform.training.predict import load
from lepton_platform.training.quality import QualityParams, quality
from lepton_platform.training.train import model
from tests.models.scenes import LABELS, scenes

ROOT = Path(__file__).parents[2]
NETWORK = {"features": {"widths": [16, 16, 32, 32], "blocks": [1, 1, 1, 1], "width": 32}, "convolutions": 1}


def poor(train, rows, labels):
    return np.tile(np.array([[[0, 0, 20, 20, 0.5, 0]]]), (rows.num_rows, 1, 1))


PART = SimpleNamespace(LEARNER=Detection("image", "boxes", LABELS, decode), __name__="scenes")
METRICS = SimpleNamespace(EVALUATOR=BoxEvaluation("image", "boxes", decode, "one corner", poor, sure=0.4))


def silent(done, total, values=None):
    pass


def train(folder: Path) -> None:
    """Writes ``dataset``, ``model`` and ``quality`` of a small detector."""
    sets = {"train": scenes(48, 0), "validation": scenes(4, 1), "test": scenes(12, 2)}
    for name, rows in sets.items():
        Dataset(folder / "dataset" / name).write(rows)
    for name in ("model", "scratch", "quality"):
        (folder / name).mkdir()
    told = {"epochs": 12, "batch_rows": 8, "learning_rate": 4e-3, "head_learning_rate_factor": 1.0, "best_by": "last"}
    params = TrainParams.model_validate({**told, "device": "cpu", "network": NETWORK, "patience": None})
    places = {"out": folder / "model", "scratch": folder / "scratch", "cache": folder}
    model(dataset=folder / "dataset", params=params, model=PART, progress=silent, **places)
    quality(
        dataset=folder / "dataset",
        model=folder / "model",
        out=folder / "quality",
        params=QualityParams(bootstrap_repeats=100, min_gain=0.2),
        model_part=PART,
        metrics=METRICS,
        progress=silent,
    )


def compress(folder: Path, out: Path, **changes: object) -> StageResult:
    told = {"method": "static", "bootstrap_repeats": 100, "latency_rows": 4, "calibration_rows": 16, "max_loss": 0.05}
    out.mkdir()
    return compressed(
        dataset=folder / "dataset",
        model=folder / "model",
        quality=folder / "quality",
        out=out,
        params=CompressParams.model_validate({**told, **changes}),
        model_part=PART,
        metrics=METRICS,
        progress=silent,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    train(folder)
    compress(folder, folder / "compressed")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_int8_finds_what_float_finds(folder):
    report = json.loads((folder / "compressed" / "report.json").read_text())
    assert report["method"] == "static" and report["agreement"] > 0.95
    assert report["float_ap50"] > 0.6 and abs(report["ap50_change"]) < 0.05
    assert report["int8_bytes"] < 0.4 * report["float_onnx_bytes"]
    assert report["agreement_batched"] > 0.98
    metrics = json.loads((folder / "quality" / "metrics.json").read_text())
    assert metrics["ap50"] == pytest.approx(report["float_ap50"], abs=1e-6)


def test_products_are_integers_and_places_are_not(folder):
    graph = onnx.load(folder / "compressed" / "model.onnx").graph
    made = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions and all(made[node.input[0]].op_type == "DequantizeLinear" for node in convolutions)
    weights = [w for w in graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) == 4]
    assert len(weights) == len({node.input[1] for node in convolutions})
    assert graph.output[0].name == "logits"
    assert made["logits"].op_type == "Concat"  # no eight bits between the last convolution and the answer
    assert not any(made[name].op_type == "DequantizeLinear" for name in made["logits"].input)
    free = [d.dim_param for d in graph.input[0].type.tensor_type.shape.dim]
    assert free == ["rows", "", "size_1", "size_2"] and graph.input[0].name == "image"


def test_pictures_of_any_size_are_answered(folder):
    network, session = load(folder / "model", PART), Session(folder / "compressed" / "model.onnx")
    for rows, height, width in ((1, 32, 32), (3, 64, 160)):
        image = torch.randint(0, 256, (rows, 3, height, width), dtype=torch.uint8)
        with torch.inference_mode():
            wanted = network(image=image).numpy()
        [found] = session.run({"image": image.numpy()})
        assert found.shape == wanted.shape
        assert np.abs(found - wanted)[:, :, :4].mean() < 3  # pixels


def test_a_fresh_process_leaves_the_same_bytes(folder, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.compression.test_static import compress\n"
        "compress(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "again")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": "", "PYTHONHASHSEED": "1"})
    assert not done.returncode, done.stderr
    assert done.stdout + done.stderr == ""
    assert hashes(tmp_path / "again") == hashes(folder / "compressed")


def test_weights_that_must_stay_float_are_named_as_the_network_names_them(tmp_path):
    learner = PART.LEARNER
    config = learner.configure(NETWORK, scenes(4, 0), tmp_path, tmp_path)
    network = learner.build(config)
    export(learner.graphs(network, config)["model"], tmp_path / "float.onnx", opset_of(network))
    rows = [{"image": np.full((1, 3, 32, 32), value, np.uint8)} for value in (0, 255)]
    how = {"per_channel": True, "reduce_range": True}
    with pytest.raises(StageFailed, match=r"keep_float: tail\.\* fits no operator .*\(head\.boxes\.weight\)"):
        quantise_static(tmp_path / "float.onnx", tmp_path / "wrong.onnx", rows, keep_float=["tail.*"], **how)
    kept = quantise_static(tmp_path / "float.onnx", tmp_path / "kept.onnx", rows, keep_float=["head.*"], **how)
    weights = [
        w for w in onnx.load(tmp_path / "kept.onnx").graph.initializer if len(w.dims) == 4 and "weight" in w.name
    ]
    floats = {w.name for w in weights if w.data_type == onnx.TensorProto.FLOAT}
    assert floats == {"head.boxes.weight", "head.classes.weight"}
    assert kept >= len(weights) - 2 > 10
