"""The quick figure of labelled answers counts what the check of the served quality counts: by one join, of the same log."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.gateway.labelled import Agreed, Labelled
from lepton_platform.monitoring.quality import join
from lepton_platform.serving.ids import first_id
from lepton_platform.serving.log_reader import FEEDBACK, PREDICTIONS, read_all, read_log

TASK = "sentiment"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SINCE, NOW = NOON + timedelta(minutes=30), NOON + timedelta(hours=3)
LABELS = st.sampled_from(["fresh", "rotten"])
asked = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from("ab"), LABELS), max_size=8, unique_by=lambda row: row[0]
)
said = st.lists(
    st.tuples(st.integers(0, 130), st.integers(0, 240), LABELS), max_size=12
)  # on the answer of which minute


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


def named(minute: int, number: int = 0) -> str:
    """An id of that minute."""
    return f"{first_id(at(minute))}-7{number:03x}-8000-000000000000"


def write(folder: Path, kind: str, rows: list[tuple[int, dict[str, str]]]) -> None:
    """A segment an hour, as the service leaves it. ``rows``: minute, and the row but for its time."""
    by_hour: dict[str, list[dict[str, str]]] = {}
    for minute, row in rows:
        when = at(minute)
        told = {**row, "at": when.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        by_hour.setdefault(when.strftime("%Y-%m-%dT%H"), []).append(told)
    for hour, found in by_hour.items():
        found.sort(key=lambda row: row["id"])
        path = folder / TASK / hour / f"{kind}-{found[0]['id']}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in found), "utf-8")


@settings(max_examples=40, deadline=None)
@given(answers=asked, words=said, split=st.integers(0, 12))
def test_the_gateway_counts_what_the_check_counts(answers, words, split) -> None:
    rows = [
        (m, {"id": named(m), "model": tag, "deployment": "1", "text": "x", "label": label}) for m, tag, label in answers
    ]
    told = [
        (m, {"id": named(m, n + 1), "prediction_id": named(on), "label": label})
        for n, (on, m, label) in enumerate(words)
    ]
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, PREDICTIONS, rows)
        write(folder, FEEDBACK, told[:split])
        kept = Labelled(folder)
        kept.of(TASK, SINCE, now=NOW)  # what it remembers from a look before is no other than what it reads anew
        write(folder, FEEDBACK, told)
        found = kept.of(TASK, SINCE, now=NOW)
        assert found == Labelled(folder).of(TASK, SINCE, now=NOW)
        pieces = list(read_all(folder, TASK, FEEDBACK))
        feedback = pa.concat_tables(pieces) if pieces else read_log(folder, TASK, "never", FEEDBACK)
        for tag in "ab":
            log = read_all(folder, TASK)
            pairs, counts = join(log, feedback, since=SINCE, until=NOW, as_of=NOW, model=tag, truth="label")
            right = sum(row["label"] == truth for row, truth in pairs)
            assert found.get(tag, Agreed()) == Agreed(right, counts.labelled)


def test_boxes_and_texts_agree_in_part(tmp_path: Path) -> None:
    """There is no line from which an answer is right."""
    rows = [(40, {"id": named(40), "model": "a", "deployment": "1", "text": "the quick brown fox"})]
    write(tmp_path, PREDICTIONS, rows)
    write(tmp_path, FEEDBACK, [(41, {"id": named(41), "prediction_id": named(40), "text": "the quick red fox"})])
    assert Labelled(tmp_path).of(TASK, SINCE, "deployment", NOW) == {"1": Agreed(0.75, 1)}
