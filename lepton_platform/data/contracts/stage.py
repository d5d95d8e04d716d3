"""The stage: run the task's suite, leave the verdict, stop the line where the data are not what they must be."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import ConfigDict, Field, ValidationError

from lepton_platform.data.clean import ROWS
from lepton_platform.data.contracts.suite import Expectation
from lepton_platform.data.dataset import Dataset
from lepton_platform.settings import get_settings
from lepton_platform.stage import Params, StageFailed, StageResult

RESULT = "result.json"


class ContractParams(Params):
    """What every contract can be asked; a task's own ``ContractParams`` adds the bounds of its suite."""

    max_row_change: float = Field(
        0.5, gt=0, description="Change of the row count against the last version: 0.5 is ±50 %."
    )
    on_row_change: Literal["warn", "fail"] = Field("warn", description="What a larger change does.")


class AnyContractParams(ContractParams):
    """The section as the stage gets it; the task's ``contract.ContractParams`` checks the rest of it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Contract(Protocol):
    """A task's ``contract.py``."""

    ContractParams: type[ContractParams]

    def expectations(self, params: Any) -> Sequence[Expectation]:
        """The suite, as plain data (``data.contracts.suite``)."""
        ...


def contract(
    *,
    clean: Path,
    out: Path,
    params: AnyContractParams,
    contract: Contract,
    previous: Mapping[str, Any] | None,
    task: str,
) -> StageResult:
    """Leave ``out/result.json``: the verdicts, the same bytes for the same data, suite and parameters.

    ``StageFailed`` if an expectation is not met; its details name each one with what was found and rows to look at.
    Data Docs of every run, met or not, lie in the workspace's state, outside the hashed output.
    """
    from lepton_platform.data.contracts.gx import check

    dataset = Dataset(clean / ROWS)
    rows = len(dataset)
    docs = get_settings().state_dir / "data_docs" / task
    verdicts = check(dataset.path, contract.expectations(_checked(params, contract)), f"{task} contract", docs)
    failed = [verdict for verdict in verdicts if not verdict["success"]]
    warnings = _row_change(rows, previous, params)
    index = docs / "index.html"
    if failed:
        raise StageFailed(
            _said(failed, len(verdicts)), {"failed": failed, "warnings": warnings, "data_docs": str(index)}
        )
    _write(out / RESULT, verdicts, rows)
    metadata = {
        "expectations_md": expectations_md(verdicts),
        "data_docs": str(index),
        "warnings": warnings,
    }
    return StageResult(rows, {"expectations": len(verdicts), "warnings": len(warnings)}, metadata)


def _checked(params: AnyContractParams, contract: Contract) -> ContractParams:
    try:
        return contract.ContractParams.model_validate(params.model_dump(exclude_unset=True))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
        known = ", ".join(contract.ContractParams.model_fields)
        raise StageFailed(f"The section `contract` of params.yaml: {wrong}. The names there are: {known}.") from None


def _row_change(rows: int, previous: Mapping[str, Any] | None, params: ContractParams) -> list[str]:
    """A leap in the row count is worth a word: half of the source may be missing. It depends on an earlier run, so it
    never enters the result."""
    before = (previous or {}).get("rows")
    if not before or abs(rows - before) / before <= params.max_row_change:
        return []
    said = f"{rows} rows, {before} in the last version: a change of {(rows - before) / before:+.0%}"
    if params.on_row_change == "fail":
        raise StageFailed(
            f"{said}, more than max_row_change ({params.max_row_change:.0%}) allows. If that is right, raise "
            "`contract.max_row_change` in params.yaml for this run.",
            {"failed": [{"description": said, "observed": {"rows": rows, "previous": before}}]},
        )
    return [said]


def _write(path: Path, verdicts: Sequence[Mapping[str, Any]], rows: int) -> None:
    kept = [{k: v for k, v in verdict.items() if k not in {"sample", "error"}} for verdict in verdicts]
    result = {
        "success": True,
        "rows": rows,
        "statistics": {"evaluated": len(kept), "successful": len(kept), "unsuccessful": 0},
        "expectations": kept,
    }
    path.write_text(json.dumps(result, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _said(failed: Sequence[Mapping[str, Any]], total: int) -> str:
    lines = [f"{verdict['description']} {_found(verdict)}" for verdict in failed[:5]]
    more = f" And {len(failed) - 5} more." if len(failed) > 5 else ""
    return f"The data break {len(failed)} of {total} expectations. {' '.join(lines)}{more}"


def _found(verdict: Mapping[str, Any]) -> str:
    if verdict["error"]:
        return f"(It could not be checked: {verdict['error']})"
    observed = verdict["observed"]
    bad = observed.get("unexpected_count", observed.get("observed_value"))
    sample = f", for example {json.dumps(verdict['sample'][0], ensure_ascii=False)[:160]}" if verdict["sample"] else ""
    return f"(Found: {bad}{' rows do not' if 'unexpected_count' in observed else ''}{sample}.)"


def expectations_md(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """The verdicts as a Markdown table."""
    lines = ["| expectation | met | observed |", "|---|---|---|"]
    for verdict in verdicts:
        shown = ", ".join(
            f"{k.replace('_', ' ')} {v}" for k, v in verdict["observed"].items() if not isinstance(v, list)
        )
        lines.append(f"| {verdict['description']} | {'yes' if verdict['success'] else '**no**'} | {shown} |")
    return "\n".join(lines)
