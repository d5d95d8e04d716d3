"""The stage ``bento``: everything a service needs in one folder, named by its content."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from types import ModuleType
from typing import Any

from lepton_platform.serving import bento_build, offline, server
from lepton_platform.serving.bundle import MANIFEST, MODEL, version_of
from lepton_platform.serving.manifest import FORMAT, dump, headline, tree, tree_hash
from lepton_platform.serving.params import ServeParams
from lepton_platform.serving.protocols import TaskApi
from lepton_platform.serving.shipping import ship
from lepton_platform.stage import StageFailed, StageResult

PROGRAMS = (bento_build.__name__, server.__name__, offline.__name__)  # what is run in a Bento; all else they import
CONFIG = "config.json"  # names the model's other files
REQUIREMENTS = (  # BentoML adds itself
    "numpy", "onnxruntime", "prometheus-client", "pyarrow", "pydantic", "pydantic-settings", "starlette",
    "uvicorn", "uvloop", "httptools",
)  # fmt: skip


def bento(
    *,
    contract: Path,
    features: Path,
    dataset: Path,
    model: Path,
    quality: Path,
    compressed: Path,
    reference: Path,
    out: Path,
    params: ServeParams,
    task: str,
    all_params: Mapping[str, Any],
    versions: Mapping[str, str],
    api: ModuleType,
    preprocess: ModuleType,
) -> StageResult:
    """Build the Bento in a process that runs the Bento's own code, and let it answer its own example.

    The manifest names the inputs by the SHA-256 of their trees and by their versions; the Bento's version is the
    manifest's hash. ``StageFailed`` where the model's folder lacks a file, the task's ``api`` one of its names, or the
    Bento does not answer.
    """
    _check(api)
    inputs = {
        "contract": contract,
        "features": features,
        "dataset": dataset,
        "model": model,
        "quality": quality,
        "compressed": compressed,
        "reference": reference,
    }
    with tempfile.TemporaryDirectory(prefix="bento-", dir=out.parent) as folder:
        staged = Path(folder) / "staged"
        parts = {"api": api.__name__, "preprocess": preprocess.__name__}
        _stage(staged, compressed, [*PROGRAMS, *parts.values()])
        manifest = {
            "format": FORMAT,
            "task": task,
            "parts": parts,
            "labels": json.loads((compressed / "config.json").read_text("utf-8"))["labels"],
            "hashes": {name: tree_hash(path) for name, path in inputs.items()},
            "versions": dict(versions),
            "parameters": _without_rollout(all_params),
            "service": params.model_dump(exclude={"rollout"}),
            "metrics": headline(json.loads((quality / "metrics.json").read_text("utf-8"))),
            "requirements": _pinned(*REQUIREMENTS, *getattr(api, "REQUIREMENTS", ())),
            "code": tree_hash(staged / "src/lepton_platform"),
            "files": {f"src/{name}": digest for name, digest in tree(staged / "src").items()},
        }
        (staged / MANIFEST).write_bytes(dump(manifest))
        seen = _build(staged, Path(folder))
        _move(staged / "built", out)
    version = version_of(dump(manifest))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return StageResult(
        metrics={"size_bytes": size, "first_answer_s": seen["seconds"]},
        metadata={"tag": f"{task}:{version}", "manifest_path": MANIFEST, "answered": seen["answer"]},
    )


def _check(api: ModuleType) -> None:
    """``StageFailed`` names what ``TaskApi`` wants and the module lacks: a service would miss it when it is asked."""
    wanted = [*TaskApi.__annotations__, *(name for name in vars(TaskApi) if not name.startswith("_"))]
    lacking = [name for name in wanted if not hasattr(api, name)]
    if lacking:
        raise StageFailed(
            f"{api.__name__} lacks {', '.join(lacking)}. `TaskApi` in lepton_platform/serving/protocols.py says what "
            "each is, and any other task's api.py is an example."
        )


def _stage(staged: Path, compressed: Path, modules: list[str]) -> None:
    ship(modules, staged / "src")
    (staged / MODEL).mkdir()
    wanted = [CONFIG]
    for name in wanted:
        if not (compressed / name).is_file():
            raise StageFailed(f"{compressed} has no {name}; a service needs {', '.join(wanted)}. Compress again.")
        shutil.copyfile(compressed / name, staged / MODEL / name)
        if name == CONFIG:
            wanted += _named(compressed / name)


def _named(config: Path) -> list[str]:
    """The graphs and the further files that a model's config says it needs; each lies beside it."""
    told = json.loads(config.read_text("utf-8"))
    names: list[str] = [*told["runtime"]["graphs"].values(), *told.get("files", [])]
    for name in names:
        if Path(name).name != name:
            raise StageFailed(f"{config} names the file {name!r}: it must lie in the model's own folder.")
    return names


def _without_rollout(all_params: Mapping[str, Any]) -> dict[str, Any]:
    """The task's parameters; what decides about a rollout does not change what is rolled out."""
    serve = {name: value for name, value in (all_params.get("serve") or {}).items() if name != "rollout"}
    return json.loads(json.dumps({**all_params, "serve": serve}, default=str))


def _pinned(*names: str) -> list[str]:
    return sorted({f"{name}=={installed(name)}" for name in names})


def _build(staged: Path, scratch: Path) -> dict[str, Any]:
    """Run ``bento_build`` from the staged code; what it says of the first answer."""
    command = [sys.executable, "-m", bento_build.__name__, str(staged)]
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(scratch / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=staged / "src", env={**os.environ, **quiet}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise StageFailed(f"The Bento did not answer its own example, so it was not built:\n{last}")
    return json.loads(done.stdout.splitlines()[-1])


def _move(built: Path, out: Path) -> None:
    for path in sorted(built.iterdir()):
        shutil.move(path, out / path.name)
