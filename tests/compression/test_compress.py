"""The stage ``compressed``: the graph says what the network says, or it is refused with a way out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lepton_platform.compression.export import export
from lepton_platform.compression.session import Session
from lepton_platform.data.dataset import Dataset
from lepton_platform.models.graph import Graph
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part
from lepton_platform.training.predict import load
from tests.training.later_stages import compress, evaluate
from tests.training.reviews import ROWS, train_small, write_reviews

ROOT = Path(__file__).parents[2]
PART = load_part("sentiment", "model")
LEARNT = {"min_gain": -0.2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("reviews"))


@pytest.fixture(scope="module", params=["transformer", "rnn"])
def folder(request, dataset, tmp_path_factory) -> Path:
    """Holds ``model``, ``quality`` and ``compressed`` of a small network of either kind."""
    folder = train_small(dataset, request.param, tmp_path_factory.mktemp(request.param)).parent
    evaluate(dataset, folder, **LEARNT)
    folder.joinpath("result.json").write_text(json.dumps(dict(compress(dataset, folder).metrics)))
    return folder


@pytest.fixture(scope="module")
def network(folder) -> torch.nn.Module:
    return load(folder / "model", PART)


def batch(rows: int, tokens: int, seed: int) -> dict[str, torch.Tensor]:
    """Token ids and a mask of ragged lengths, each at least one."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens + 1, (rows,), generator=rng)
    lengths[0] = tokens
    ids = torch.randint(0, 30, (rows, tokens), generator=rng)
    return {"input_ids": ids, "attention_mask": (torch.arange(tokens) < lengths[:, None]).long()}


def arrays(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def test_the_exported_graph_computes_what_the_network_does(network, tmp_path):
    path = tmp_path / "model.onnx"
    export(Graph(network, batch(2, 5, 0), batch(3, 11, 1)), path)
    session = Session(path)
    for number, (rows, tokens) in enumerate([(1, 1), (1, 48), (7, 3), (33, 20)]):  # none was an example
        inputs = batch(rows, tokens, number)
        with torch.inference_mode():
            wanted = network(**inputs).numpy()
        assert session.run(arrays(inputs))[0] == pytest.approx(wanted, abs=1e-5)


def test_the_graph_tells_its_inputs_and_nothing_of_where_it_was_made(folder, tmp_path_factory):
    import onnx

    path = folder / "compressed" / "model.onnx"
    graph = onnx.load(path)
    assert [value.name for value in graph.graph.input] == ["input_ids", "attention_mask"]
    for value in graph.graph.input:
        assert [d.dim_param for d in value.type.tensor_type.shape.dim] == ["rows", "size_1"]
    assert [value.name for value in graph.graph.output] == ["logits"]
    content = path.read_bytes()
    for place in (ROOT, Path(torch.__file__).parent, tmp_path_factory.getbasetemp(), torch.__version__):
        assert str(place).encode() not in content


def test_the_answers_are_those_of_the_float_model_and_in_the_same_form(folder):
    report = json.loads((folder / "compressed" / "report.json").read_text())
    before, after = (Dataset(folder / name / "predictions").read() for name in ("quality", "compressed"))
    assert after.schema.equals(before.schema)
    assert after["id"] == before["id"]
    same = np.mean(np.array(before["predicted"]) == np.array(after["predicted"]))
    assert report["agreement"] == pytest.approx(same, abs=1e-6)
    assert report["agreement"] >= 0.97
    right = np.mean(np.array(after["predicted"]) == np.array(after["label"]))
    assert report["int8_accuracy"] == pytest.approx(right, abs=1e-6)
    assert report["float_accuracy"] == json.loads((folder / "quality" / "metrics.json").read_text())["accuracy"]
    low, high = report["accuracy_change_ci95"]
    assert low <= report["accuracy_change"] <= high
    assert report["n_test"] == ROWS["test"]
    assert report["int8_bytes"] == (folder / "compressed" / "model.onnx").stat().st_size < report["float_onnx_bytes"]
    assert report["weights_quantised"] > 0
    headline = json.loads((folder / "compressed" / "headline.json").read_text())
    assert headline["accuracy"] == report["int8_accuracy"] and headline["change"] == report["accuracy_change"]


def test_all_that_the_model_needs_lies_beside_it(folder):
    model, out = folder / "model", folder / "compressed"
    for name in ("model.safetensors", "tokenizer.json"):
        assert (out / name).read_bytes() == (model / name).read_bytes()
    config, before = (json.loads((place / "config.json").read_text()) for place in (out, model))
    assert {**before, "runtime": config["runtime"]} == config
    assert config["runtime"]["graphs"] == {"model": "model.onnx"}


def test_the_first_figure_is_the_one_that_decides(folder):
    assert next(iter(json.loads((folder / "result.json").read_text()))) == "agreement"


def test_a_fresh_process_leaves_the_same_bytes_and_warns_of_nothing(dataset, folder, tmp_path):
    for name in ("model", "quality"):
        (tmp_path / name).symlink_to(folder / name)
    script = Path(__file__).parents[1] / "training" / "later_stages.py"
    command = [sys.executable, str(script), "compressed", str(dataset), str(tmp_path), "{}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert done.stdout + done.stderr == ""
    ours, theirs = folder / "compressed", tmp_path / "compressed"
    files = sorted(path.relative_to(ours) for path in ours.rglob("*") if path.is_file())
    assert len(files) == 7
    for name in files:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_it_runs_without_torch(folder, tmp_path):
    """As the service does: numpy in, numpy out."""
    inputs = arrays(batch(4, 9, 3))
    np.savez(tmp_path / "inputs.npz", **inputs)
    code = (
        "import sys, numpy as np\n"
        "from lepton_platform.compression.session import Session\n"
        f"found = Session({str(folder / 'compressed' / 'model.onnx')!r}).run(dict(np.load('inputs.npz')))[0]\n"
        "np.save('found.npy', found)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    found = np.load(tmp_path / "found.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, Session(folder / "compressed" / "model.onnx").run(inputs)[0])


@pytest.fixture(scope="module")
def fragile(dataset, tmp_path_factory) -> Path:
    """A model with one enormous embedding, of a token that no text has: in eight bits the others become zeros."""
    folder = train_small(dataset, "rnn", tmp_path_factory.mktemp("fragile")).parent
    path = folder / "model" / "model.safetensors"
    weights = load_file(path)
    config = json.loads((folder / "model" / "tokenizer.json").read_text())
    weights["encoder.embeddings.weight"][config["model"]["vocab"]["[UNK]"]] = 1e4
    save_file(weights, path)
    evaluate(dataset, folder, **LEARNT)
    return folder


def test_a_model_that_eight_bits_damage_is_refused_with_the_figures(dataset, fragile):
    with pytest.raises(StageFailed, match=r"changed the model too much: .* agrees .*compress\.keep_float") as failed:
        compress(dataset, fragile, out="refused")
    assert failed.value.details["agreement"] < 0.9
    assert failed.value.details["int8_accuracy"] < failed.value.details["float_accuracy"] - 0.1
    assert not (fragile / "refused" / "report.json").exists()


def test_the_way_out_that_it_names_leads_out(dataset, fragile):
    """The operator's name is what the graph calls it, as a wrong pattern's refusal tells."""
    with pytest.raises(StageFailed, match=r"keep_float: nothing\* fits no operator.*There are: ") as refused:
        compress(dataset, fragile, out="wrong", keep_float=["nothing*"])
    assert "embedding" in refused.value.message
    assert compress(dataset, fragile, out="kept", keep_float=["*embedding*"]).metrics["agreement"] >= 0.97


def test_an_export_beyond_the_tolerance_is_refused(dataset, fragile):
    with pytest.raises(StageFailed, match=r"outputs differ by up to .*compress\.export_tolerance"):
        compress(dataset, fragile, out="strict", export_tolerance=1e-12)


@pytest.mark.parametrize("rows", [1, 0])
def test_one_row_is_enough_and_none_is_said(dataset, fragile, tmp_path, rows):
    for place, many in (("test", rows), ("train", None)):
        Dataset(tmp_path / "set" / place).write(Dataset(dataset / place).read().slice(0, many))
    (tmp_path / "model").symlink_to(fragile / "model")
    before = Dataset(fragile / "quality" / "predictions").read().slice(0, rows)
    Dataset(tmp_path / "quality" / "predictions").write(before)
    if rows:
        assert compress(tmp_path / "set", tmp_path, min_agreement=0, max_loss=1).rows == 1
    else:
        with pytest.raises(StageFailed, match="no test rows"):
            compress(tmp_path / "set", tmp_path)
