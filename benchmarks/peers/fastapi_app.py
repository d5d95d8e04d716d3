"""FastAPI + ONNX Runtime, one uvicorn process: ``python -m benchmarks.peers.fastapi_app MODEL PORT THREADS [LOG]``.

With LOG it keeps what it answers as our service does: a row an answer, on the disk before the answer is sent.
"""

import json
import os
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers import Model, load


class Request(BaseModel):
    """One of the two: what the model takes."""

    texts: list[str] = []
    images: list[str] = []


class Answers(BaseModel):
    predictions: list[dict[str, Any]]


class Log:
    """Rows as JSON lines; one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self.lock = threading.Lock()

    def append(self, values: list[str], answers: list[dict[str, Any]]) -> None:
        rows = [{"id": str(uuid.uuid4()), "input": v, **a} for v, a in zip(values, answers, strict=True)]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        with self.lock:
            os.write(self.file, data)
            os.fdatasync(self.file)


def create(model: Model, log: Log | None) -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    def predict(request: Request) -> Answers:  # FastAPI runs it in its pool of threads
        values = request.texts or request.images
        answers = model.predict(values)
        if log is not None:
            log.append(values, answers)
        return Answers(predictions=answers)

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    kept = Log(Path(sys.argv[4])) if len(sys.argv) > 4 else None
    app = create(load(Path(sys.argv[1]), int(sys.argv[3])), kept)
    uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="error")
