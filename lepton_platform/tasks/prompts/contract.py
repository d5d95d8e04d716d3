"""What the recordings and their texts must be, once they are clean."""

from pydantic import Field

from lepton_platform.data import contracts
from lepton_platform.data.audio import RATE
from lepton_platform.data.contracts import recordings, suite

COLUMNS = {
    "id": "VARCHAR",
    "event_time": "TIMESTAMP WITH TIME ZONE",
    "audio": "BLOB",
    "text": "VARCHAR",
    "sentence": "VARCHAR",
    "speaker": "VARCHAR",
    "file": "VARCHAR",
    "origin": "VARCHAR",
}


class ContractParams(contracts.ContractParams):
    min_rows: int = Field(500, ge=1, description="Fewer recordings are not enough to learn from.")
    min_sentences: int = Field(400, ge=1, description="Fewer different sentences are not enough; nor to tell by.")
    min_seconds: float = Field(0.2, gt=0, description="The shortest recording.")
    max_seconds: float = Field(60, gt=0, description="The longest recording.")
    min_pace: float = Field(0.3, ge=0, description="Characters of a text that are said a second, at least.")
    max_pace: float = Field(30, gt=0, description="Characters of a text that are said a second, at most.")
    max_chars: int = Field(2_000, ge=1, description="The longest text, in characters.")


def expectations(params: ContractParams) -> list[suite.Expectation]:
    return [
        *suite.columns(COLUMNS),
        suite.row_count(params.min_rows),
        *suite.not_null("id", "event_time", "audio", "text", "sentence", "origin"),
        *suite.unique("id"),
        recordings.readable("audio"),
        recordings.sound("audio", RATE, channels=1, bits=16),
        recordings.lengths("audio", params.min_seconds, params.max_seconds),
        recordings.all_different("audio"),
        suite.lengths("text", 1, params.max_chars),
        recordings.speakable("text"),
        recordings.paces("audio", "text", params.min_pace, params.max_pace),
        suite.rows(
            "SELECT count(DISTINCT sentence) AS sentences FROM {batch} "
            f"HAVING count(DISTINCT sentence) < {params.min_sentences}",
            f"There are at least {params.min_sentences} different sentences.",
        ),
        suite.one_of("origin", ("source", "feedback")),
    ]
