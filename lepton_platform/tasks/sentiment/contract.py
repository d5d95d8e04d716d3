"""What the reviews must be, once they are clean."""

from pydantic import Field

from lepton_platform.data import contracts
from lepton_platform.data.contracts import suite
from lepton_platform.tasks.sentiment.preprocess import LABELS

COLUMNS = {
    "id": "VARCHAR",
    "event_time": "TIMESTAMP WITH TIME ZONE",
    "text": "VARCHAR",
    "label": "VARCHAR",
    "film_id": "VARCHAR",
    "film": "VARCHAR",
    "origin": "VARCHAR",
}


class ContractParams(contracts.ContractParams):
    min_rows: int = Field(5_000, ge=1, description="Fewer reviews are not enough to learn from.")
    min_share: float = Field(0.3, gt=0, le=0.5, description="Each label makes up at least this share.")
    min_chars: int = Field(2, ge=1, description="The shortest review, in characters.")
    max_chars: int = Field(20_000, ge=1, description="The longest review, in characters.")


def expectations(params: ContractParams) -> list[suite.Expectation]:
    return [
        *suite.columns(COLUMNS),
        suite.row_count(params.min_rows),
        *suite.not_null("id", "event_time", "text", "label", "film_id", "origin"),
        *suite.unique("id", "text"),
        suite.one_of("label", LABELS),
        suite.share_of_each("label", LABELS, params.min_share),
        suite.lengths("text", params.min_chars, params.max_chars),
        suite.one_of("origin", ("source", "feedback")),
    ]
