"""What a stage function takes and gives: the vocabulary shared by every room.

A stage function is pure: paths and parameters in, files and metadata out. It is written as

    def clean(*, raw: Path, out: Path, params: CleanParams, preprocess: Preprocess) -> StageResult

and the runner (``pipeline/run.py``) binds its keyword arguments by name:

===========  ==================================================================================
an input     the folder that the stage of that name left (``raw``, ``clean`` …)
``out``      an empty folder to fill; renamed into place when the function returns
``params``   the stage's section of ``params.yaml``, checked against the annotation
a part       a module of the task's folder (``source``, ``contract``, ``preprocess`` …)
``cache``    a folder for downloads, shared by all workspaces
``scratch``  a folder that survives a kill, the same for the same inputs: checkpoints go here
``progress`` called with (done, total, values): drawn as a bar, streamed by Pipes
``previous`` what the ledger knows of the last version: ``{"rows": int, …}``, or ``None``
===========  ==================================================================================

It asks only for what it needs. It does not know which tool called it, nor what comes next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """A section of ``params.yaml``: unknown names are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Progress(Protocol):
    """Receives the advance of a long stage; ``values`` are figures such as the loss."""

    def __call__(self, done: int, total: int, values: Mapping[str, float] | None = None) -> None: ...


@dataclass(frozen=True)
class StageResult:
    """What a stage says of itself beside its files. None of it enters a hashed output.

    ``rows``: rows in the main table. ``metrics``: figures worth a chart.
    ``metadata``: JSON values for the ledger and the UI; keys ending in ``_md`` are Markdown,
    in ``_png`` are base64 PNG images, in ``_path`` are files of the output, relative to it.
    """

    rows: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


class StageFailed(Exception):
    """A check or a gate said no, or an input cannot be used: the work failed, the code did not.

    ``message`` is one paragraph for the person who reads it: what was wrong, where, what to do.
    ``details`` are JSON values (failed expectations, sample rows) for the ledger and the UI.
    """

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
