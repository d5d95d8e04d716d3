"""The digits' source: MNIST without unpickling, and a user's own pictures, whatever is wrong with one of them."""

import base64
import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.images import decode, encode_png
from lepton_platform.data.raw import RawParams, raw
from lepton_platform.data.records import raw_schema, to_table
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.digits import source
from lepton_platform.tasks.digits.source import SourceParams
from tests.data.pictures import noise, saved


def read(params: SourceParams, cache: Path = Path("/nowhere")) -> list[dict]:
    return to_table(list(source.records(params, cache)), raw_schema(source.SCHEMA)).to_pylist()


@pytest.fixture(scope="module")
def digits(cache_dir: Path) -> list[dict]:
    return read(SourceParams(limit=300), cache_dir)


def test_mnist_is_read_and_a_sample_is_the_same_in_every_larger_one(digits, cache_dir):
    assert len(digits) == 300 and {row["label"] for row in digits} == set("0123456789")
    picture = decode(digits[0]["image"])
    assert picture.shape == (28, 28, 3) and picture.max() == 255 and (picture == 0).mean() > 0.6
    assert len({row["id"] for row in digits}) == 300 and not any(row["problem"] for row in digits)
    smaller = {row["id"]: row for row in read(SourceParams(limit=100), cache_dir)}
    known = {row["id"]: row for row in digits}
    assert smaller == {identity: known[identity] for identity in smaller}


def python_2_pickle(pairs: list[tuple[np.ndarray, list[int]]]) -> bytes:
    """The instructions of such a file that push bytes, as Python 2 wrote them; the rest says nothing about the data."""
    out = b"\x80\x02"
    for pixels, labels in pairs:
        for content in (pixels.astype("<f4").tobytes(), np.array(labels, "<i8").tobytes()):
            out += b"T" + len(content).to_bytes(4, "little") + content + b"0"
    return gzip.compress(out + b"N.")


def test_pixels_and_labels_come_from_the_pickles_bytes():
    sets = [(np.arange(784 * n).reshape(n, 784) % 256 / 256, list(range(n))) for n in (2, 1, 1)]
    pixels, labels = source.read_mnist(python_2_pickle(sets))
    assert pixels.shape == (4, 784) and pixels.dtype == np.uint8 and labels == [0, 1, 0, 0]
    assert (pixels[0] == np.arange(784) % 256).all()


def test_a_pickle_that_is_not_mnist_is_refused_and_not_run(tmp_path):
    proof = tmp_path / "ran"
    words = f"touch {proof}".encode()
    program = b"\x80\x02cos\nsystem\nX" + len(words).to_bytes(4, "little") + words + b"\x85R."
    with pytest.raises(StageFailed, match="0 arrays, not the six"):
        source.read_mnist(gzip.compress(program))
    assert not proof.exists()


def test_a_folder_a_label(tmp_path):
    for label, names in {"7": ["a.png", "more/b.jpg"], "1": ["a.png", "notes.txt"]}.items():
        for n, name in enumerate(names):
            (tmp_path / label / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / label / name).write_bytes(saved(noise(9, 9, n), "JPEG" if name.endswith("jpg") else "PNG"))
    rows = read(SourceParams(kind="folder", path=str(tmp_path)))
    assert [row["label"] for row in rows] == ["1", "7", "7"] and len({row["id"] for row in rows}) == 3
    named = read(SourceParams(kind="folder", path=str(tmp_path), labels={"7": "3"}))
    assert [(row["id"], row["label"]) for row in named] == [(r["id"], {"7": "3"}.get(r["label"], "1")) for r in rows]
    few = read(SourceParams(kind="folder", path=str(tmp_path), limit=2))
    assert len(few) == 2 and all(row in rows for row in few)
    with pytest.raises(StageFailed, match=r"holds no <label>/<picture>"):
        read(SourceParams(kind="folder", path=str(tmp_path / "1")))


PICTURES = [saved(noise(9, 9, n)) for n in range(3)]


def parquet(path: Path, images: list, kind: pa.DataType | None = None) -> str:
    table = {"image": pa.array(images, kind), "label": [4, 5, 6], "when": ["2020-01-01"] * 3, "key": ["a", "b", "c"]}
    pq.write_table(pa.table(table), path)
    return str(path)


def test_a_table_holds_the_pictures_or_names_them(tmp_path):
    plain = parquet(tmp_path / "plain.parquet", PICTURES)
    structs = parquet(tmp_path / "hub.parquet", [{"bytes": data, "path": None} for data in PICTURES])
    (tmp_path / "photos/x").mkdir(parents=True)
    for n, data in enumerate(PICTURES):
        (tmp_path / f"photos/x/{n}.png").write_bytes(data)
    with (tmp_path / "named.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(
            [["image", "label", "when", "key"], *([f"x/{n}.png", 4 + n, "2020-01-01", k] for n, k in enumerate("abc"))]
        )
    columns = {"kind": "table", "time": "when", "id": "key"}
    rows = read(SourceParams(path=plain, **columns))
    assert [(row["id"], row["label"], row["image"]) for row in rows] == list(zip("abc", "456", PICTURES, strict=True))
    assert not any(row["problem"] for row in rows)
    assert read(SourceParams(path=structs, **columns)) == rows
    named = SourceParams(path=str(tmp_path / "named.csv"), pictures=str(tmp_path / "photos"), **columns)
    assert read(named) == rows
    assert source.files(named) == [named.path, named.pictures]
    two = read(SourceParams(path=[plain, structs], kind="table"))
    assert len({row["id"] for row in two}) == 6 and len({row["event_time"] for row in two[:3]}) == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"image": "x/none.png"}, "there is no picture 'x/none.png' in the folder source.pictures"),
        ({"image": "../secret.png"}, "leads out of the folder source.pictures"),
        ({"image": "/etc/hostname"}, "leads out of the folder source.pictures"),
        ({"image": 7}, "7 is neither a picture's bytes nor its path"),
        ({"label": ["4"]}, "label: ['4'] is not text"),
        ({"when": "soon"}, "'soon' is not a time"),
        ({"key": None}, "key: no id"),
    ],
)
def test_a_fault_in_a_row_is_named_and_costs_that_row(tmp_path, line, said):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/good.png").write_bytes(PICTURES[0])
    good = {"image": "good.png", "label": "4", "when": "2020-01-01", "key": "a"}
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ({**good, "key": "b", **line}, good)))
    params = {"path": str(tmp_path / "t.jsonl"), "pictures": str(tmp_path / "photos"), "time": "when", "id": "key"}
    bad, fine = read(SourceParams(kind="table", **params))
    assert said in bad["problem"] and "t.jsonl line 1" in bad["problem"] and bad["id"]
    assert fine["problem"] is None and fine["image"] == PICTURES[0]


def test_a_path_without_a_folder_says_what_to_set(tmp_path):
    (tmp_path / "t.csv").write_text("image,label\ngood.png,4\n")
    (row,) = read(SourceParams(kind="table", path=str(tmp_path / "t.csv")))
    assert "set source.pictures" in row["problem"]


def test_what_does_not_go_together_is_refused():
    for wrong in ({"kind": "folder"}, {"path": "x"}, {"kind": "folder", "path": ["a", "b"]}, {"kind": "mnist"}):
        with pytest.raises(ValidationError):
            SourceParams(**wrong)
    assert source.files(SourceParams()) == []


def test_feedback_becomes_rows_and_faults_in_it_are_named(tmp_path, cache_dir):
    data = encode_png(noise(28, 28)[..., 0])
    line = {"id": "p1", "event_time": "2026-01-01T00:00:00Z", "label": "7"}
    good = {**line, "image": {"$base64": base64.b64encode(data).decode()}}
    (tmp_path / "labels.jsonl").write_text(
        "\n".join(map(json.dumps, [good, {**good, "id": "p2", "image": "x"}, {**good, "id": "p3", "label": None}]))
    )
    out = tmp_path / "raw"
    raw(out=out, params=RawParams(limit=5), source=source, cache=cache_dir, labels=tmp_path / "labels.jsonl")
    rows = {row["id"]: row for row in Dataset(out).read().to_pylist() if row["origin"] == "feedback"}
    assert (rows["feedback-p1"]["image"], rows["feedback-p1"]["label"]) == (data, "7")
    assert "bytes of a picture are needed" in rows["feedback-p2"]["problem"]
    assert "needs a label" in rows["feedback-p3"]["problem"]
