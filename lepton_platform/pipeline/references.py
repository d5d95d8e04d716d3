"""What the champion is compared with: the reference that was made with it, or one measured by today's code."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_platform.pipeline.code import code_hash
from lepton_platform.pipeline.ledger import Ledger
from lepton_platform.pipeline.lineage import table
from lepton_platform.pipeline.params import section
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.pipeline.versioning import Versions
from lepton_platform.settings import Settings
from lepton_platform.tasks import load_part

if TYPE_CHECKING:
    from lepton_platform.monitoring.reference import References

STAGE = get_stage("reference")


def reference_of(settings: Settings, task: str, versions: Mapping[str, str]) -> "References":
    """The reference of the model that was made of these versions.

    Signals of today's rows can be compared only with signals that the same code has measured. Where it has changed since
    the model was made, or the model is older than the stage, it is measured once more from the rows of that model, and kept
    beside the live state.
    """
    from lepton_platform.monitoring import reference as room

    version = versions.get(STAGE.name)
    if version is not None and _is_current(settings, task, version):
        with Versions(settings) as stored:
            return room.load(stored.files(version))
    params = section(settings.workspace, task, STAGE.params, room.ReferenceParams)
    assert isinstance(params, room.ReferenceParams)
    made_of = [versions["dataset"], versions["compressed"], code_hash(STAGE, task), params.model_dump()]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    folder = settings.state_dir / "drift" / task / f"reference-{key}"
    if not folder.is_dir():
        part = load_part(task, "drift")
        test = table(settings, versions["dataset"], "test")
        answers = room.held_out_answers(table(settings, versions["compressed"], "predictions"), test, part.GROUP)
        train = table(settings, versions["dataset"], "train")
        known = room.measure(train, answers, part, params, settings.cache_dir)  # pyright: ignore[reportArgumentType]
        _keep(known, folder)
    return room.load(folder)


def _is_current(settings: Settings, task: str, version: str) -> bool:
    """Was it made by today's code? Where nobody remembers, it is believed."""
    maker = Ledger(settings).maker(task, STAGE.name, version)
    return maker is None or maker.code in {None, code_hash(STAGE, task)}


def _keep(known: "References", folder: Path) -> None:
    """Under its name at once or not at all; those before it go."""
    from lepton_platform.monitoring.reference import save

    for old in folder.parent.glob("reference-*"):
        shutil.rmtree(old, ignore_errors=True)
    fresh = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    save(known, fresh)
    fresh.rename(folder)
