"""What a deployed Bento was made of, read back from DVC's cache: its training rows and its own answers on test rows."""

from pathlib import Path
from typing import TYPE_CHECKING

from lepton_platform.pipeline.ledger import Ledger
from lepton_platform.pipeline.stages import STAGES
from lepton_platform.pipeline.versioning import Versions
from lepton_platform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa


def all_versions(settings: Settings, task: str, versions: dict[str, str]) -> dict[str, str]:
    """The manifest's versions and, through the ledger, those of the stages before them (raw, clean …)."""
    ledger, found = Ledger(settings), dict(versions)
    for stage in reversed(STAGES):
        maker = ledger.maker(task, stage.name, found[stage.name]) if stage.name in found else None
        for name, version in (maker.inputs if maker else {}).items():
            found.setdefault(name, version)
    return found


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
