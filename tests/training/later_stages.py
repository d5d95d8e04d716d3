"""Run the stages after ``model`` in a process of their own: ``python later_stages.py STAGE DATASET FOLDER PARAMS``.

``FOLDER`` holds ``model`` and, for ``compressed``, ``quality``; the stage's output is left beside them.
"""

import json
import sys
from pathlib import Path

from lepton_platform.compression.compress import CompressParams, compressed
from lepton_platform.stage import StageResult
from lepton_platform.tasks import load_part
from lepton_platform.training.quality import QualityParams, quality

PARTS = {"model_part": load_part("sentiment", "model"), "metrics": load_part("sentiment", "metrics")}


def evaluate(dataset: Path, folder: Path, out: str = "quality", **params: object) -> StageResult:
    told = QualityParams.model_validate({"device": "cpu", "bootstrap_repeats": 300, **params})
    (folder / out).mkdir()
    return quality(
        dataset=dataset, model=folder / "model", out=folder / out, params=told, progress=lambda *_: None, **PARTS
    )


def compress(dataset: Path, folder: Path, out: str = "compressed", **params: object) -> StageResult:
    told = CompressParams.model_validate({"bootstrap_repeats": 300, **params})
    (folder / out).mkdir()
    places = {"model": folder / "model", "quality": folder / "quality", "out": folder / out}
    return compressed(dataset=dataset, params=told, progress=lambda *_: None, **places, **PARTS)


if __name__ == "__main__":
    stage, dataset, folder, params = sys.argv[1:]
    run = {"quality": evaluate, "compressed": compress}[stage]
    run(Path(dataset), Path(folder), **json.loads(params))
