"""FastAPI + ONNX Runtime, one uvicorn process: ``python -m benchmarks.peers.fastapi_app MODEL PORT THREADS [LOG]``.

With LOG it keeps what it answers as our service does: a row an answer, on the disk before the answer is sent.
"""

import json
import os
import sys
import threading
import uuid
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.classifier import Classifier


class Request(BaseModel):
    texts: list[str]


class Answer(BaseModel):
    label: str
    score: float


class Answers(BaseModel):
    predictions: list[Answer]


class Log:
    """Rows as JSON lines; one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self.lock = threading.Lock()

    def append(self, texts: list[str], answers: list[dict[str, str | float]]) -> None:
        rows = [{"id": str(uuid.uuid4()), "text": t, **a} for t, a in zip(texts, answers, strict=True)]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        with self.lock:
            os.write(self.file, data)
            os.fdatasync(self.file)


def create(model: Path, threads: int, log: Log | None) -> FastAPI:
    app, classifier = FastAPI(), Classifier(model, threads)

    @app.post("/predict")
    def predict(request: Request) -> Answers:  # FastAPI runs it in its pool of threads
        answers = classifier.predict(request.texts)
        if log is not None:
            log.append(request.texts, answers)
        return Answers.model_validate({"predictions": answers})

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    kept = Log(Path(sys.argv[4])) if len(sys.argv) > 4 else None
    app = create(Path(sys.argv[1]), int(sys.argv[3]), kept)
    uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="error")
