"""What a deployed Bento was made of, read back from DVC's cache: its training rows and its own answers on test rows."""

from pathlib import Path
from typing import TYPE_CHECKING

from lepton_platform.pipeline.ledger import Ledger
from lepton_platform.pipeline.stages import STAGES, Stage, get_stage
from lepton_platform.pipeline.versioning import Versions
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa


def all_versions(settings: Settings, task: str, versions: dict[str, str]) -> dict[str, str]:
    """The manifest's versions and those of the stages before them (raw, clean …).

    The ledger tells these; of what was made on another machine ``dvc.lock`` does, while it names the same version.
    """
    ledger, found = Ledger(settings), dict(versions)
    with Versions(settings) as recorded:
        for stage in reversed(STAGES):
            if stage.name not in found:
                continue
            maker = ledger.maker(task, stage.name, found[stage.name])
            read = maker.inputs if maker else _read(recorded, stage, task, found[stage.name])
            for name, version in read.items():
                found.setdefault(name, version)
    return found


def _read(recorded: Versions, stage: Stage, task: str, version: str) -> dict[str, str]:
    """Stage → version of what the stage read to make this version, where ``dvc.lock`` knows it."""
    try:
        paths = recorded.inputs(stage, task) if recorded.version(stage, task) == version else {}
    except StageFailed:  # no repository, or a table of stages that has changed: the rest of the past is still told
        return {}
    return {name: paths[path] for name in stage.inputs if (path := get_stage(name).path(task)) in paths}


def shards(settings: Settings, version: str, folder: str) -> list[Path]:
    """Where the Parquet shards of ``folder`` in that version of a stage's output lie, in order."""
    with Versions(settings) as versions:
        files = versions.files(version)
    return [files[name] for name in sorted(files) if name.startswith(f"{folder}/part-")]


def table(settings: Settings, version: str, folder: str, columns: list[str] | None = None) -> "pa.Table":
    """The rows of ``folder`` in that version; those that the model learned from are in ``train`` of ``dataset``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.concat_tables(pq.read_table(path, columns=columns) for path in shards(settings, version, folder))
