"""The ``serve`` section of a task's parameters."""

from pydantic import Field

from lepton_platform.stage import Params


class RolloutParams(Params):
    """When a challenger may take the champion's place; not part of the Bento."""

    max_loss: float = Field(
        0.02,
        ge=0,
        description="Of the task's first figure (accuracy, AP50): the most that may be lost, at 95 % confidence; of a "
        "canary, of its agreement with what people said.",
    )
    max_rows: int = Field(5_000, ge=1, description="Test rows that both answer; the first by id.")
    recent_rows: int = Field(
        1_000, ge=1, description="Labelled production rows, held out of training, that both answer; the latest."
    )
    min_recent_rows: int = Field(50, ge=1, description="Fewer of them decide nothing.")
    max_recent_loss: float = Field(
        0.1, ge=0, description="Of the same figure on these rows: the most that may be lost, at 95 % confidence."
    )
    canary: list[float] = Field(
        default_factory=list,
        description="Shares of the requests, in percent, by which a challenger takes over; none: at once.",
    )
    every_s: float = Field(600.0, gt=0, description="The least time for each share, seconds.")
    min_requests: int = Field(50, ge=1, description="Requests that a canary must have answered at each share.")
    max_errors: float = Field(
        0.01, ge=0, le=1, description="Share of a canary's requests that may fail beyond the champion's."
    )
    max_crashes: int = Field(1, ge=0, description="Times that a canary's process may end by itself.")
    max_slowdown: float = Field(2.0, gt=0, description="A canary's 95th percentile of latency by the champion's.")
    max_disagreement: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of the same inputs that canary and champion may answer differently; more, where it was better "
        "on labelled production rows: what it answered differently there.",
    )


class ServeParams(Params):
    """How a service runs; part of the Bento, but for ``rollout``."""

    lanes: int = Field(0, ge=0, description="Batches run side by side; 0: one a core.")
    max_batch: int = Field(4, ge=1, description="Inputs run together at most.")
    padding: float = Field(0.25, ge=0, description="What a batch may waste, as a share of its smallest input.")
    max_waiting: int = Field(2048, ge=1, description="Inputs that may wait; beyond, 503.")
    max_wait_s: float = Field(2.0, gt=0, description="A longer wait is refused with 503, seconds.")
    max_requests: int = Field(256, ge=1, description="Requests answered at a time; beyond, 503.")
    max_held_mib: int = Field(256, ge=1, description="Request bodies held in memory at a time; beyond, 503.")
    rollout: RolloutParams = Field(default_factory=lambda: RolloutParams.model_validate({}))
