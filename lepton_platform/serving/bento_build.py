"""Runs inside a staged Bento, from its own code: try it, then let BentoML write its folder.

``python -m lepton_platform.serving.bento_build STAGED``; STAGED holds manifest.json and src/, and receives built/.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lepton_platform.serving.bundle import MANIFEST, Bundle, version_of

CREATED = datetime(2000, 1, 1, tzinfo=UTC)  # BentoML wants a time; the true one is in the ledger
NEVER_LOADED = ("torch", "torchvision", "pandas", "transformers", "sklearn", "bentoml")
DOCKERFILE = """\
# syntax=docker/dockerfile:1
# Build in the Bento's folder:  docker build -f env/docker/Dockerfile -t {task}:{version} .
FROM python:{python}-slim
RUN useradd --create-home --uid 1034 service && install -d -o service /predictions
COPY env/python/requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir -r /tmp/requirements.txt
COPY --chown=service manifest.json bento.yaml /bento/
COPY --chown=service src /bento/src
USER service
WORKDIR /bento/src
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 3000
VOLUME /predictions
HEALTHCHECK CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:3000/readyz', timeout=3)"
CMD ["python", "-m", "lepton_platform.serving.server", "--bento", "/bento", "--predictions", "/predictions", \\
     "--host", "0.0.0.0", "--port", "3000"]
"""
README = """\
# {task}:{version}

{example}

- `bentoml serve {task}:{version}` or `bentoml serve .` answers on http://127.0.0.1:3000; `/schema.json` describes it.
- `manifest.json` says what it was made of: data, features, contract, model, parameters, code, by hash.
"""


def try_it(staged: Path) -> dict[str, Any]:
    """Answer the task's example without a server; ``SystemExit`` names what must not be loaded and was."""
    from lepton_platform.serving.offline import answer_inputs

    bundle = Bundle.load(staged)
    inputs = bundle.api.decode(json.dumps(bundle.api.EXAMPLE).encode(), "application/json")
    started = time.perf_counter()
    answers = [answer for answer, _ in answer_inputs(bundle, inputs)]
    import lepton_platform.serving.app  # noqa: F401 - everything that a service loads

    loaded = [name for name in NEVER_LOADED if name in sys.modules]
    if loaded:
        raise SystemExit(f"A service must not load {', '.join(loaded)}: import them where training uses them.")
    return {"answer": answers, "seconds": round(time.perf_counter() - started, 3)}


def build(staged: Path) -> None:
    """BentoML's build, with the version and the time that make it the same bytes every time."""
    import attrs
    from bentoml._internal.bento.bento import Bento
    from bentoml._internal.bento.build_config import BentoBuildConfig

    from lepton_platform.serving import service

    content = (staged / MANIFEST).read_bytes()
    manifest = json.loads(content)
    task, version = manifest["task"], version_of(content)
    example = json.dumps(Bundle.load(staged).api.EXAMPLE)
    config = BentoBuildConfig(
        service=f"{service.__name__}:{service.Answers.inner.__name__}",
        name=task,
        description=README.format(task=task, version=version, example=f"`POST /predict` `{example}`"),
        labels={"task": task},
        exclude=["**/__pycache__/**"],
        python={"packages": manifest["requirements"], "lock_packages": False},  # pyright: ignore[reportArgumentType]
    )
    made = Bento.create(config, version=version, build_ctx=str(staged / "src"))
    info = attrs.evolve(made.info, creation_time=CREATED)
    made._info = info
    made.flush_info()
    built = staged / "built"
    shutil.copytree(made.path, built, copy_function=shutil.copyfile)
    (built / "env/python/requirements.in").unlink(missing_ok=True)
    shutil.copyfile(staged / MANIFEST, built / MANIFEST)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    dockerfile = DOCKERFILE.format(task=task, version=version, python=python)
    (built / "env/docker/Dockerfile").write_text(dockerfile, "utf-8")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("BENTOML_HOME", home)
        seen = try_it(folder)
        build(folder)
    print(json.dumps(seen))
