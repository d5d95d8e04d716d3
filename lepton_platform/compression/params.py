"""``compress`` in params.yaml."""

from typing import Literal

from pydantic import Field

from lepton_platform.stage import Params


class CompressParams(Params):
    """``compress`` in params.yaml."""

    min_agreement: float = Field(0.97, ge=0, le=1, description="Share of test rows answered as the float model does.")
    max_loss: float = Field(0.01, ge=0, description="Of the headline figure: 0.01 is one point.")
    export_tolerance: float = Field(
        1e-4, gt=0, description="The most that an exported output y may differ from torch's, as a share of 1 + |y|."
    )
    method: Literal["dynamic", "static"] = Field(
        "dynamic", description="dynamic: for products of matrices; static: for convolutions, with calibration rows."
    )
    calibration_rows: int = Field(64, ge=1, description="Static: training rows that ranges are measured on.")
    per_channel: bool = Field(True, description="A scale for every column of a matrix, or channel of a convolution.")
    reduce_range: bool = Field(True, description="7-bit weights: the same answers on CPUs with and without VNNI.")
    unsigned: bool = Field(
        False, description="dynamic: weights of 8 bits that overflow on no CPU, at up to twice the time of 7 bits."
    )
    keep_float: list[str] = Field(
        default_factory=list, description="Patterns of operators, or of their weights, that stay float."
    )
    batch_rows: int = Field(
        1, ge=1, description="Rows at a time where the int8 model is judged; see agreement_batched."
    )
    threads: int = Field(1, ge=1, description="Of the int8 model, where it is judged and timed.")
    latency_rows: int = Field(32, ge=2, description="Rows of the batch that is timed and held against single rows.")
    bootstrap_repeats: int = Field(2_000, ge=100, description="Draws behind the interval of the change.")
    seed: int = Field(0, ge=0, description="Of the draws.")
