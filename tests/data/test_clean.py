"""Stage clean: every row comes out, clean or set aside, whatever came in."""

import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data.clean import CleanParams, clean
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.records import raw_schema, to_table
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment import preprocess, source

SCHEMA = raw_schema(source.SCHEMA)
START = datetime(2020, 1, 1, tzinfo=UTC)
GOOD = {
    "text": "a fine film about quiet people in a loud town",
    "label": "fresh",
    "film_id": "f",
    "film": "F",
    "origin": "source",
}


def row(n: int, **changes) -> dict:
    return {**GOOD, "id": f"r{n}", "event_time": START + timedelta(hours=n), **changes}


def run(rows: list[dict], **params) -> tuple[list[dict], list[dict]]:
    """(rows that stay, rows set aside)"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Dataset(folder / "raw").write(to_table(rows, SCHEMA))
        clean(raw=folder / "raw", out=folder / "out", params=CleanParams(**params), preprocess=preprocess)
        return Dataset(folder / "out/rows").read().to_pylist(), Dataset(folder / "out/quarantine").read().to_pylist()


def reasons(aside: list[dict]) -> dict[str, tuple[str, str]]:
    return {r["id"]: (r["reason"], r["detail"]) for r in aside}


OTHER = row(99, text="something else entirely, and rather dull", label="rotten")


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"problem": "reviews.csv row 3: not text"}, "malformed", "reviews.csv row 3: not text"),
        ({"text": None}, "missing_field", "no text"),
        ({"label": None, "film_id": None}, "missing_field", "no label, film_id"),
        ({"event_time": None}, "missing_field", "no event_time"),
        ({"label": "splendid"}, "unknown_label", "'splendid' is none of rotten, fresh"),
        ({"text": " <br/> \n"}, "empty", "nothing is left when it is cleaned"),
        ({"text": "A"}, "too_small", "size 1 is below 2"),
        ({"text": "long " * 10_000}, "too_large", "size 49999 is above 20000"),
        ({"id": "r99", "event_time": START + timedelta(days=9)}, "duplicate_id", "an earlier row has the id r99"),
        ({"text": "Something ELSE entirely - and rather dull!", "label": "rotten", "event_time": START + timedelta(days=9)},
         "duplicate", "the same as r99"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_set_aside_with_its_reason(changes, reason, detail):
    rows, aside = run([OTHER, row(1, **changes)])
    assert [r["id"] for r in rows] == ["r99"]
    ((found, why),) = reasons(aside).values()
    assert found == reason and why == detail


def test_a_clean_row_is_mended_and_its_original_kept_where_it_is_set_aside():
    rows, aside = run([row(1, text="Lilo &amp; Stitch <b>rocks</b>"), row(2, text="Lilo & Stitch rocks")])
    assert [r["text"] for r in rows] == ["Lilo & Stitch rocks"]
    assert "problem" not in rows[0]
    (second,) = aside
    assert second["text"] == "Lilo & Stitch rocks" and second["detail"] == "the same as r1"


def test_the_same_text_with_opposite_labels_goes_as_a_whole():
    text = "one of those films"
    rows, aside = run([row(1, text=text), row(2, text=text.upper(), label="rotten"), row(3, text=text), OTHER])
    assert [r["id"] for r in rows] == ["r99"]
    assert {reason for reason, _ in reasons(aside).values()} == {"contradiction"}
    assert reasons(aside)["r1"][1] == "labelled fresh, and rotten in r2"


def test_feedback_displaces_no_row_of_the_source_even_if_it_says_to_be_older():
    old = START - timedelta(days=400)
    rows, aside = run(
        [
            row(1),
            row(2, origin="feedback", label="rotten", event_time=old),
            row(3, origin="feedback", event_time=old),
            row(4, origin="feedback", text=GOOD["text"] + " today", label="rotten", event_time=old),
        ]
    )
    assert [r["id"] for r in rows] == ["r1"]
    assert {i: reason for i, (reason, _) in reasons(aside).items()} == {
        "r2": "contradiction",
        "r3": "duplicate",
        "r4": "near_duplicate",
    }
    assert reasons(aside)["r4"][1].endswith("like r1, which is labelled fresh")


def test_near_duplicates_go_unless_they_are_wanted():
    text = "one two three four five six seven eight nine ten eleven twelve"
    pair = [row(1, text=text), row(2, text=text.replace("twelve", "zwölf"))]
    rows, aside = run(pair)
    assert len(rows) == 1 and reasons(aside)["r2"][0] == "near_duplicate"
    assert len(run(pair, near_duplicates=False)[0]) == 2


def test_when_nothing_can_be_used_the_stage_says_why():
    with pytest.raises(StageFailed, match="No row can be used: empty 2") as failed:
        run([row(1, text=""), row(2, text=" ")])
    assert failed.value.details["reasons"] == {"empty": 2}


TEXTS = st.one_of(
    st.sampled_from(["good film", "Good film!", "bad film", "", "<br>", "&amp;", "a", "\ud800", "x" * 30]),
    st.text(max_size=8),
    st.none(),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.one_of(st.integers(0, 30).map(str), st.none()),
            "event_time": st.one_of(st.integers(0, 10**6).map(lambda s: START + timedelta(seconds=s)), st.none()),
            "text": TEXTS,
            "label": st.sampled_from(["fresh", "rotten", "FRESH", None]),
            "film_id": st.sampled_from(["f", "g", None]),
            "film": st.none(),
            "origin": st.sampled_from(["source", "feedback"]),
            "problem": st.sampled_from([None, None, None, "odd"]),
        }
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_rows_in_are_rows_out_and_quarantined_whatever_they_hold(rows):
    rows = [OTHER, *rows]
    kept, aside = run(rows, max_size=25 + len(OTHER["text"]))
    assert Counter(r["id"] for r in kept + aside) == Counter(r["id"] for r in rows)
    assert all(r["reason"] and r["detail"] for r in aside)
    assert len({preprocess.identity(r["text"]) for r in kept}) == len(kept)
    assert len({r["id"] for r in kept}) == len(kept)
    assert all(r["label"] in preprocess.LABELS and r["film_id"] and r["event_time"] for r in kept)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.randoms())
def test_the_order_of_the_rows_decides_nothing_where_times_differ(rows, random):
    rows = [OTHER, *(r | {"event_time": START + timedelta(seconds=n)} for n, r in enumerate(rows))]
    shuffled = random.sample(rows, len(rows))

    def outcome(order: list[dict]) -> list[tuple]:
        kept, aside = run(order)
        return sorted((str(r["id"]), r["event_time"], r.get("reason") or "") for r in kept + aside)

    assert outcome(rows) == outcome(shuffled)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_what_is_clean_stays_as_it_is(rows):
    kept, _ = run([OTHER, *rows])
    again, aside = run([{**r, "problem": None} for r in kept])
    assert again == kept and aside == []


def test_a_tasks_numeric_columns_are_filled_and_brought_to_their_range(tmp_path):
    class Numbers:
        CONTENT, LABEL, LABELS, REQUIRED = "x", None, None, ("x",)
        GROUP, IMPUTE, RANGES = "patient", {"y": "last"}, {"y": (0, 10)}
        normalise = staticmethod(float)
        size = staticmethod(lambda x: 1)
        identity = staticmethod(str)
        shingles = staticmethod(lambda x: {str(x)})

    rows = [  # patient, origin, y
        ("p", "source", 5.0),
        ("q", "source", 20.0),
        ("p", "feedback", 9.0),
        ("p", "source", None),
        ("q", "source", None),
        (None, "source", None),
    ]
    times = pa.array([START + timedelta(hours=n) for n in range(len(rows))], pa.timestamp("us", "UTC"))
    columns = dict(zip(("patient", "origin", "y"), map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table({"id": list("abcdef"), "event_time": times, "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], **columns})
    Dataset(tmp_path / "raw").write(table)
    params = CleanParams(min_size=0)
    result = clean(raw=tmp_path / "raw", out=tmp_path / "out", params=params, preprocess=Numbers)
    assert Dataset(tmp_path / "out/rows").read()["y"].to_pylist() == [0.5, 1.0, 0.9, 0.5, 1.0, None]
    assert result.metadata["imputed_cells"] == {"y": 2}


SCRIPT = """
import sys
from pathlib import Path
from lepton_platform.data.clean import CleanParams, clean
from lepton_platform.data.raw import RawParams, raw
from lepton_platform.tasks.sentiment import preprocess, source
out, cache = Path(sys.argv[1]), Path(sys.argv[2])
raw(out=out / "raw", params=RawParams(limit=1200), source=source, cache=cache, labels=out / "labels.jsonl")
clean(raw=out / "raw", out=out / "clean", params=CleanParams(), preprocess=preprocess)
"""


def test_two_fresh_processes_leave_the_same_bytes(tmp_path, cache_dir):
    found = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        out.mkdir()
        env = {"PYTHONHASHSEED": seed, "PATH": "/nowhere"}  # the second needs no client: nothing is downloaded
        if seed == "1":
            env = None
        subprocess.run([sys.executable, "-c", SCRIPT, str(out), str(cache_dir)], check=True, env=env)
        found.append({path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.parquet"))})
    assert list(found[0]) == [
        "clean/quarantine/part-00000.parquet",
        "clean/rows/part-00000.parquet",
        "raw/part-00000.parquet",
    ]
    assert found[0] == found[1]


# --- what a task itself objects to


def test_a_task_may_object_to_a_row_by_its_columns(tmp_path):
    asked = []

    def usable(found):
        asked.append(found["id"])
        return ("odd_film", f"film {found['film']}") if found["film"] == "odd" else None

    rows = [row(0), row(1, film="odd", text="another text"), row(2, text=None), row(3, text="a third one, with words")]
    Dataset(tmp_path / "raw").write(to_table(rows, SCHEMA))
    part = SimpleNamespace(**vars(preprocess), usable=usable)
    clean(raw=tmp_path / "raw", out=tmp_path / "out", params=CleanParams(), preprocess=part)
    assert [r["id"] for r in Dataset(tmp_path / "out/rows").read().to_pylist()] == ["r0", "r3"]
    aside = reasons(Dataset(tmp_path / "out/quarantine").read().to_pylist())
    assert aside == {"r1": ("odd_film", "film odd"), "r2": ("missing_field", "no text")}
    assert asked == ["r0", "r1", "r3"]  # what lacks a field is not asked about


def test_content_without_a_label_of_its_own_needs_none(tmp_path):
    Dataset(tmp_path / "raw").write(to_table([row(0, label=None)], SCHEMA))
    part = SimpleNamespace(**{**vars(preprocess), "LABEL": None, "REQUIRED": ("text",)})
    assert clean(raw=tmp_path / "raw", out=tmp_path / "out", params=CleanParams(), preprocess=part).rows == 1
