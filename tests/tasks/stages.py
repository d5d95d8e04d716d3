"""The data stages of a task, called one after the other on rows that a test made."""

import json
from pathlib import Path
from typing import Any

from lepton_platform.data.clean import CleanParams, clean
from lepton_platform.data.contracts import AnyContractParams, contract
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.records import ORIGIN, Record, raw_schema, to_table
from lepton_platform.features.materialize import FeaturesParams, features
from lepton_platform.settings import use_workspace
from lepton_platform.tasks import load_part


def write_raw(task: str, records: list[Record], folder: Path) -> None:
    rows = [{ORIGIN: "source", **record} for record in records]
    Dataset(folder / "raw").write(to_table(rows, raw_schema(load_part(task, "source").SCHEMA)))


def cleaned(task: str, records: list[Record], folder: Path, **params: Any) -> tuple[list[Record], dict[str, Record]]:
    """(rows that stay, id → row set aside)"""
    write_raw(task, records, folder)
    done = clean(
        raw=folder / "raw",
        out=folder / "clean",
        params=CleanParams(**params),
        preprocess=load_part(task, "preprocess"),
    )
    stay, aside = (Dataset(folder / "clean" / name).read().to_pylist() for name in ("rows", "quarantine"))
    assert done.rows == len(stay) and len(stay) + len(aside) == len(records)
    return stay, {row["id"]: row for row in aside}


def checked(task: str, folder: Path, **params: Any) -> dict[str, Any]:
    """The contract's result for ``folder/clean``; ``StageFailed`` where it does not hold."""
    use_workspace(folder)
    (folder / "contract").mkdir(exist_ok=True)
    contract(
        clean=folder / "clean",
        out=folder / "contract",
        params=AnyContractParams(**params),
        contract=load_part(task, "contract"),
        previous=None,
        task=task,
    )
    return json.loads((folder / "contract/result.json").read_text())


def featured(task: str, folder: Path, cache: Path | None = None) -> dict[str, Dataset]:
    """Name → feature view of ``folder/clean``; ``cache``: of packages, for views that need one."""
    (folder / "features").mkdir()
    preprocess = load_part(task, "preprocess")
    features(
        clean=folder / "clean",
        contract=folder / "contract",
        out=folder / "features",
        params=FeaturesParams(),
        preprocess=preprocess,
        cache=cache or folder,
        progress=lambda *_, **__: None,
    )
    return {view.name: Dataset(folder / "features" / view.name) for view in preprocess.FEATURE_VIEWS}
