"""What the digits must be, once they are clean."""

from pydantic import Field

from lepton_platform.data import contracts
from lepton_platform.data.contracts import pictures, suite
from lepton_platform.tasks.digits.preprocess import LABELS

COLUMNS = {
    "id": "VARCHAR",
    "event_time": "TIMESTAMP WITH TIME ZONE",
    "image": "BLOB",
    "label": "VARCHAR",
    "origin": "VARCHAR",
}


class ContractParams(contracts.ContractParams):
    min_rows: int = Field(10_000, ge=1, description="Fewer digits are not enough to learn from.")
    min_share: float = Field(0.05, gt=0, le=0.1, description="Each label makes up at least this share.")
    min_side: int = Field(16, ge=1, description="The shortest side of a picture, in pixels.")
    max_side: int = Field(1_024, ge=1, description="The longest side of a picture, in pixels.")


def expectations(params: ContractParams) -> list[suite.Expectation]:
    return [
        *suite.columns(COLUMNS),
        suite.row_count(params.min_rows),
        *suite.not_null("id", "event_time", "image", "label", "origin"),
        *suite.unique("id"),
        pictures.readable("image"),
        pictures.sides("image", params.min_side, params.max_side),
        pictures.all_different("image"),
        suite.one_of("label", LABELS),
        suite.share_of_each("label", LABELS, params.min_share),
        suite.one_of("origin", ("source", "feedback")),
    ]
