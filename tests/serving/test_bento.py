"""The stage ``bento``: the same bytes, whole, light, and a Bento that BentoML itself lists and serves."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lepton_platform.gateway.control import wait_ready
from lepton_platform.serving.bundle import MANIFEST, Bundle, version_of
from lepton_platform.serving.manifest import headline, problems, tree
from lepton_platform.serving.store import import_bento, tag_of
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part
from tests.serving.conftest import ROOT, make_bento

BENTOML = Path(sys.executable).with_name("bentoml")
BUILD = """
import sys
from pathlib import Path
from tests.serving.conftest import make_bento
make_bento(Path(sys.argv[1]))
"""


def test_built_twice_in_fresh_processes_it_is_the_same_bytes(bento: Path, tmp_path: Path) -> None:
    other = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "12345", "TZ": "Pacific/Auckland"}
    subprocess.run([sys.executable, "-c", BUILD, str(tmp_path)], env=other, cwd=tmp_path, check=True)
    assert tree(tmp_path / "bento") == tree(bento)


def test_the_manifest_names_everything_by_hash(bento: Path) -> None:
    manifest = json.loads((bento / MANIFEST).read_bytes())
    stages = {"contract", "features", "dataset", "model", "quality", "compressed", "reference"}
    assert set(manifest["hashes"]) == stages and all(len(h) == 64 for h in manifest["hashes"].values())
    assert manifest["versions"] == {"dataset": "0123.dir"} and manifest["parameters"]["train"] == {"seed": 1}
    assert manifest["metrics"] == {"accuracy": 0.81, "accuracy_ci95": [0.79, 0.83]}
    onnx = hashlib.sha256((bento / "src/model/model.onnx").read_bytes()).hexdigest()
    assert manifest["files"]["src/model/model.onnx"] == onnx
    words = (bento / MANIFEST).read_text("utf-8") + (bento / "bento.yaml").read_text("utf-8")
    assert str(ROOT) not in words and socket.gethostname() not in words
    assert Bundle.load(bento).tag == tag_of(bento) == f"sentiment:{version_of((bento / MANIFEST).read_bytes())}"


def test_only_what_serving_needs_is_in_it(bento: Path) -> None:
    requirements = (bento / "env/python/requirements.txt").read_text("utf-8").split()
    assert not [
        line for line in requirements if line.startswith(("torch", "pandas", "transformers", "dagster", "feast"))
    ]
    assert len(requirements) == len(set(requirements)) and all("==" in line for line in requirements)
    names = set(tree(bento))
    assert "src/lepton_platform/tasks/sentiment/api.py" in names
    for room in ("pipeline", "components", "cli", "training", "monitoring"):
        assert not [name for name in names if name.startswith(f"src/lepton_platform/{room}/")]
    assert not [name for name in names if name.endswith((".pyc", ".pkl", ".pt", ".joblib"))]


def test_other_parameters_are_another_version_and_a_rollout_rule_is_not(bento: Path, tmp_path: Path) -> None:
    assert tag_of(make_bento(tmp_path / "a", max_batch=7)) != tag_of(bento)
    manifest = json.loads((make_bento(tmp_path / "b", rollout={"max_loss": 0.5}) / MANIFEST).read_bytes())
    assert "rollout" not in manifest["parameters"]["serve"]
    assert {**manifest, "parameters": {}} == {**json.loads((bento / MANIFEST).read_bytes()), "parameters": {}}


def test_a_model_without_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.serving import conftest, models

    def without(folder: Path, words: object) -> Path:
        models.write_model(folder)
        (folder / "tokenizer.json").unlink()
        return folder

    monkeypatch.setattr(conftest, "write_model", without)
    with pytest.raises(StageFailed, match=r"tokenizer\.json"):
        make_bento(tmp_path)


def test_an_api_without_a_name_that_the_service_needs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KIND", "from_row"):
        monkeypatch.delattr(load_part("sentiment", "api"), name)
    with pytest.raises(StageFailed, match=r"sentiment\.api lacks KIND, from_row"):
        make_bento(tmp_path)


def test_a_model_that_does_not_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.serving import conftest, models

    def broken(folder: Path, words: object) -> Path:
        models.write_model(folder)
        (folder / "model.onnx").write_bytes(b"not a model")
        return folder

    monkeypatch.setattr(conftest, "write_model", broken)
    with pytest.raises(StageFailed, match="did not answer its own example"):
        make_bento(tmp_path)


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_a_bento_that_was_tampered_with_is_not_imported(bento: Path, tmp_path: Path, change: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bento, copy)
    target = copy / "src/lepton_platform/serving/app.py"
    if change == "edit":
        target.write_text(target.read_text("utf-8") + "#\n", "utf-8")
    elif change == "add":
        (copy / "src/sitecustomize.py").write_text("import os\n", "utf-8")
    else:
        target.unlink()
    assert problems(copy) and not problems(bento)
    with pytest.raises(StageFailed, match="not what its manifest says"):
        import_bento(tmp_path / "home", copy)


def test_half_a_copy_in_the_store_is_mended(bento: Path, tmp_path: Path) -> None:
    place = import_bento(tmp_path, bento)
    (place / "src/model/model.onnx").unlink()
    assert import_bento(tmp_path, bento) == place and not problems(place)
    assert tree(place) == tree(bento)


def test_bentoml_lists_and_serves_it(bento: Path, tmp_path: Path) -> None:
    """`bentoml list` and `bentoml serve <tag>` as people type them: our routes, not BentoML's, and loopback only."""
    import_bento(tmp_path / "home", bento)
    tag = tag_of(bento)
    quiet = {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True", "LEPTON_WORKSPACE": str(tmp_path)}
    environment = {**os.environ, **quiet}
    listed = subprocess.run(
        [BENTOML, "list", "-o", "json"], env=environment, capture_output=True, text=True, check=True
    )
    assert tag in listed.stdout
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([BENTOML, "serve", tag, "--port", str(port)], env=environment, cwd=tmp_path)
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_ready(url, 90, process.pid)
        answer = httpx.post(f"{url}/predict", json={"texts": ["good"]}, timeout=30).json()
        assert answer["model"] == tag and answer["predictions"][0]["label"] == "fresh"
        assert httpx.get(f"{url}/schema.json").json()["openapi"].startswith("3.1")
        assert "lepton_requests_total" in httpx.get(f"{url}/metrics").text
        assert list((tmp_path / ".lepton/predictions/sentiment").rglob("*.jsonl"))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not problems(import_bento(tmp_path / "home", bento))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.5, True),
        (3, True),
        ("a", True),
        (True, True),
        ([0.1, 0.2], True),
        ([1, 2, 3], False),
        ({"a": 1}, False),
        (None, False),
    ],
)
def test_headline_figures_are_short(value: object, kept: bool) -> None:
    assert headline({"x": value}) == ({"x": value} if kept else {})
