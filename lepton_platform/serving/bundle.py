"""A Bento's folder as the service reads it.

``manifest.json`` what it was made of · ``src/lepton_platform`` the code that serves it, and no other ·
``src/model`` model.onnx, config.json and the files that it names · the rest (bento.yaml, apis, env) is BentoML's.
"""

import hashlib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lepton_platform.serving.batching import BatchLimits
from lepton_platform.serving.engine import cores
from lepton_platform.serving.protocols import TaskApi

MANIFEST = "manifest.json"
MODEL = "src/model"
VERSION_LENGTH = 20


def version_of(manifest: bytes) -> str:
    """A Bento's version: the first hex digits of its manifest's SHA-256."""
    return hashlib.sha256(manifest).hexdigest()[:VERSION_LENGTH]


@dataclass(frozen=True)
class Bundle:
    """What a Bento holds: its name, its task's modules, its model, its tunables."""

    task: str
    tag: str
    model: Path
    manifest: dict[str, Any]
    api: TaskApi
    preprocess: ModuleType

    @classmethod
    def load(cls, bento: Path) -> "Bundle":
        """Read the manifest and import the task's modules; ``FileNotFoundError`` where it is no Bento of ours."""
        content = (bento / MANIFEST).read_bytes()
        manifest = json.loads(content)
        modules = {part: importlib.import_module(name) for part, name in manifest["parts"].items()}
        task = manifest["task"]
        return cls(
            task=task,
            tag=f"{task}:{version_of(content)}",
            model=bento / MODEL,
            manifest=manifest,
            api=modules["api"],  # pyright: ignore[reportArgumentType]
            preprocess=modules["preprocess"],
        )

    @property
    def labels(self) -> list[str]:
        return self.manifest["labels"]

    @property
    def max_requests(self) -> int:
        return int(self.manifest["service"]["max_requests"])

    @property
    def max_held_bytes(self) -> int:
        return int(self.manifest["service"]["max_held_mib"]) << 20

    @property
    def limits(self) -> BatchLimits:
        """``lanes: 0`` in the parameters: one a core of the machine that serves."""
        chosen = {k: v for k, v in self.manifest["service"].items() if k not in {"max_requests", "max_held_mib"}}
        return BatchLimits(**{**chosen, "lanes": chosen["lanes"] or cores()})
