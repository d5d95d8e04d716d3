"""The reviews' source: every kind of it reads the same reviews, and no malformed row costs a good one."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from lepton_platform.data.records import raw_schema, to_table
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment import source
from lepton_platform.tasks.sentiment.source import SourceParams

REVIEWS = [
    {"review": "A fine film.", "stars": "good", "movie": "up", "when": "2020-05-01T12:00:00+02:00", "key": "a"},
    {"review": 'It "hurts",\nreally.', "stars": "bad", "movie": "up", "when": "2021-05-01", "key": "b"},
    {"review": "Ça va — 好.", "stars": "good", "movie": "down", "when": "2022-05-01 00:00:01", "key": "c"},
]
COLUMNS = {"text": "review", "label": "stars", "group": "movie", "time": "when", "id": "key"}
LABELS = {"good": "fresh", "bad": "rotten"}


def read(params: SourceParams, cache: Path = Path("/nowhere")) -> list[dict]:
    return to_table(list(source.records(params, cache)), raw_schema(source.SCHEMA)).to_pylist()


def table(*paths: Path) -> SourceParams:
    return SourceParams(kind="table", path=[str(path) for path in paths], labels=LABELS, **COLUMNS)


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same_records(tmp_path, suffix):
    rows = read(table(write(tmp_path / f"reviews.{suffix}", REVIEWS)))
    assert [(r["id"], r["text"], r["label"], r["film_id"]) for r in rows] == [
        ("a", REVIEWS[0]["review"], "fresh", "up"),
        ("b", REVIEWS[1]["review"], "rotten", "up"),
        ("c", REVIEWS[2]["review"], "fresh", "down"),
    ]
    assert [r["event_time"].isoformat() for r in rows] == [
        "2020-05-01T10:00:00+00:00",
        "2021-05-01T00:00:00+00:00",
        "2022-05-01T00:00:01+00:00",
    ]
    assert [r["problem"] for r in rows] == [None] * 3


def test_text_and_label_are_enough_and_ids_and_times_do_not_depend_on_the_rows_around(tmp_path):
    few = [{"text": "good one", "label": 1}, {"text": "good one", "label": 1}, {"text": "bad one", "label": 0}]
    more = [{"text": "another", "label": 1}, *few]
    kind = {"kind": "table"}
    rows = read(SourceParams(path=str(write(tmp_path / "few.jsonl", few)), **kind))
    longer = read(SourceParams(path=str(write(tmp_path / "more.jsonl", more)), **kind))
    assert rows == longer[1:]
    assert len({r["id"] for r in rows}) == 3
    assert rows[0]["film_id"] == rows[1]["film_id"] != rows[2]["film_id"]  # the same text in no two splits
    assert [r["label"] for r in rows] == ["fresh", "fresh", "rotten"]


def test_several_files_are_one_source(tmp_path):
    paths = [write(tmp_path / f"{n}.csv", REVIEWS[n : n + 1]) for n in range(3)]
    assert [r["id"] for r in read(table(*paths))] == ["a", "b", "c"]


MALFORMED = [
    ('{"review": "cut off', "not JSON"),
    ("[1, 2]", "not an object"),
    ("[" * 100_000, "not JSON"),
    ('{"review": 7, "stars": "good", "movie": "m", "when": 0, "key": "k"}', "review: 7 is not text"),
    ('{"review": "x", "stars": ["good"], "movie": "m", "when": 0, "key": "k"}', "stars: ['good'] is not text"),
    ('{"review": "x", "stars": "good", "movie": "m", "when": "soon", "key": "k"}', "when: 'soon' is not a time"),
    ('{"review": "x", "stars": "good", "movie": "m", "when": 1e300, "key": "k"}', "is not a time"),
    ('{"review": "x", "stars": "good", "movie": null, "when": 0, "key": "k"}', "movie: no group"),
    ('{"review": "x", "stars": "good", "movie": "m", "when": 0}', "key: no id"),
]


@pytest.mark.parametrize(("line", "said"), MALFORMED)
def test_a_malformed_line_is_a_row_with_its_place_and_its_problem(tmp_path, line, said):
    path = tmp_path / "reviews.jsonl"
    good = [json.dumps(row) for row in REVIEWS]
    path.write_text("\n".join([good[0], line, *good[1:]]) + "\n")
    rows = read(table(path))
    assert [r["id"] for r in rows if not r["problem"]] == ["a", "b", "c"]
    (bad,) = [r for r in rows if r["problem"]]
    assert bad["problem"].startswith("reviews.jsonl line 2: ") and said in bad["problem"]
    assert bad["id"]


def test_lone_surrogates_and_nul_bytes_can_be_stored(tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_text('{"text": "a\\ud800b\\u0000 \\ud83d\\ude00", "label": "1"}\n')
    (row,) = read(SourceParams(kind="table", path=str(path)))
    assert row["text"] == "a\ufffdb\0 😀" and row["problem"] is None


def test_ragged_csv_rows_and_foreign_bytes_are_named_and_cost_only_themselves(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_bytes(b"text,label\nfine,1\nshort\nlong,1,2,3\n\ncaf\xe9,1\nalso fine,0\n")
    rows = read(SourceParams(kind="table", path=str(path)))
    assert [r["text"] for r in rows if not r["problem"]] == ["fine", "also fine"]
    assert [r["problem"].split(": ", 1)[1] for r in rows if r["problem"]] == [
        "1 cells under 2 headings",
        "4 cells under 2 headings",
        "bytes that are not utf-8: is `encoding` right?",
    ]
    assert [r["text"] for r in read(SourceParams(kind="table", path=str(path), encoding="latin-1"))][3] == "café"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("reviews.csv", b"text;label\nx;1\n", r"no column 'text', 'label'.*It has: 'text;label'"),
        ("reviews.csv", b"", r"no column 'text', 'label'.*It has: none"),
        ("reviews.csv", b"text,text,label\n", "column 'text' twice"),
        ("reviews.jsonl", b'{"body": "x", "label": 1}\n', r"no column 'text'.*It has: 'body', 'label'"),
        ("reviews.json", b'[{"text": "x"}]', "one object a line"),
        ("reviews.parquet", b"PAR1 not really", "cannot be read as Parquet"),
        ("reviews.csv.gz", b"not gzip", "Not a gzipped file"),
        ("reviews.csv.gz", gzip.compress(b"text,label\nx,1\n" * 100, mtime=0)[:-20], "breaks off in the middle"),
        ("reviews.docx", b"x", "call it .csv"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StageFailed, match=said) as failed:
        read(SourceParams(kind="table", path=str(path)))
    assert name in failed.value.message


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(StageFailed, match="There is no file"):
        read(SourceParams(kind="table", path=str(tmp_path / "no.csv")))
    with pytest.raises(StageFailed, match="is a folder"):
        read(SourceParams(kind="table", path=str(tmp_path)))


def test_numbered_classes_have_their_names_where_a_hubs_parquet_carries_them(tmp_path):
    features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    found = pa.table({"text": ["good", "bad"], "label": [1, 0]})
    found = found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(found, tmp_path / "train.parquet")
    rows = read(SourceParams(kind="table", path=str(tmp_path / "train.parquet")))
    assert [r["label"] for r in rows] == ["fresh", "rotten"]


@pytest.fixture
def imdb(tmp_path: Path) -> Path:
    root = tmp_path / "aclImdb"
    for split, kind, name, text in [
        ("train", "pos", "0_9.txt", "Loved it.<br /><br />Truly."),
        ("train", "pos", "1_8.txt", "Liked it."),
        ("train", "neg", "0_1.txt", "Hated it."),
        ("test", "neg", "0_2.txt", "Slept through it."),
    ]:
        (root / split / kind).mkdir(parents=True, exist_ok=True)
        (root / split / kind / name).write_text(text)
    address = "http://www.imdb.com/title/{}/usercomments\n"
    (root / "train" / "urls_pos.txt").write_text(address.format("tt01") + address.format("tt02"))
    (root / "train" / "urls_neg.txt").write_text(address.format("tt01"))
    (root / "test" / "neg" / "1_1.txt").write_bytes(b"caf\xe9")
    return root


def test_imdbs_folder_is_read_with_its_films(imdb):
    rows = read(SourceParams(kind="imdb", path=str(imdb)))
    assert [(r["label"], r["film_id"][:6], r["problem"] is None) for r in rows] == [
        ("fresh", "tt01", True),
        ("fresh", "tt02", True),
        ("rotten", "tt01", True),
        ("rotten", "alone-", True),
        ("rotten", "alone-", False),
    ]
    assert "test/neg/1_1.txt" in rows[-1]["problem"]


def test_another_folder_is_not_imdb(tmp_path):
    with pytest.raises(StageFailed, match="is not the folder aclImdb"):
        read(SourceParams(kind="imdb", path=str(tmp_path)))


def test_files_are_those_of_the_workspace(imdb):
    assert source.files(SourceParams()) == []
    assert source.files(SourceParams(kind="imdb", path="data/aclImdb")) == ["data/aclImdb"]
    assert source.files(SourceParams(kind="table", path=["a.csv", "s3://bucket/b.csv"])) == ["a.csv"]
    assert source.files(SourceParams(kind="hub", path="owner/name")) == []


@pytest.mark.parametrize("wrong", [{"kind": "table"}, {"path": "x.csv"}, {"kind": "imdb", "path": ["a", "b"]}])
def test_a_kind_and_its_path_go_together(wrong):
    with pytest.raises(ValidationError):
        SourceParams(**wrong)


def test_feedback_becomes_a_review_of_a_film_of_its_own_unless_it_names_one():
    plain = source.labelled({"text": "Not bad.", "label": "fresh"})
    assert plain["film_id"].startswith("feedback-") and plain["label"] == "fresh"
    assert source.labelled({"text": "Not bad.", "label": "fresh", "film_id": "up"})["film_id"] == "up"
    with pytest.raises(ValueError, match="a label"):
        source.labelled({"text": "Not bad."})


def test_the_corpus_is_all_there_with_unique_ids_and_times_in_its_order(cache_dir):
    rows = read(SourceParams(), cache_dir)
    assert len(rows) == 12_808
    assert sum(r["label"] == "fresh" for r in rows) == 7_403
    assert len({r["film_id"] for r in rows}) == 508
    assert len({r["id"] for r in rows}) == len(rows)
    times = [r["event_time"] for r in rows]
    assert times == sorted(times) and len(set(times)) == len(times)
    assert not any(r["problem"] for r in rows)
