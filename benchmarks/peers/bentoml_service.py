"""BentoML as its documentation shows it: ``bentoml serve benchmarks.peers.bentoml_service:Plain``."""

import os
from pathlib import Path

import bentoml

from benchmarks.peers.classifier import Classifier


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Plain:
    def __init__(self) -> None:
        self.classifier = Classifier(Path(os.environ["BENCHMARK_MODEL"]))

    @bentoml.api
    def predict(self, texts: list[str]) -> dict[str, list[dict[str, str | float]]]:
        return {"predictions": self.classifier.predict(texts)}
