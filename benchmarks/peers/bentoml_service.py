"""BentoML as its documentation shows it: ``bentoml serve benchmarks.peers.bentoml_service:Plain``."""

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers import load

MODEL = Path(os.environ["BENCHMARK_MODEL"])


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 120})
class Plain:
    def __init__(self) -> None:
        self.model = load(MODEL)

    @bentoml.api
    def predict(
        self, texts: list[str] | None = None, images: list[str] | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        return {"predictions": self.model.predict(texts or images or [])}
