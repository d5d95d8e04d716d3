"""The prompts' source: the packaged voice, and a user's own recordings, whatever is wrong with one of them."""

import base64
import csv
import json
import shutil
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from lepton_platform.data import audio
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.raw import RawParams, raw
from lepton_platform.data.records import raw_schema, to_table
from lepton_platform.data.transcripts import normalise, speakable
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.prompts import source
from lepton_platform.tasks.prompts.source import SourceParams
from tests.data.sounds import converted, saved, speechlike


def read(params: SourceParams, cache: Path = Path("/nowhere")) -> list[dict]:
    return to_table(list(source.records(params, cache)), raw_schema(source.SCHEMA)).to_pylist()


@pytest.fixture(scope="module")
def cache(cache_dir: Path) -> Path:
    kept = (cache_dir / "packages/apt").glob("asterisk-core-sounds-en-g722-*/archive.deb")
    if shutil.which("apt-get") is None and not any(kept):
        pytest.skip("the prompts are Debian's: neither is apt-get here, nor were they fetched before")
    return cache_dir


@pytest.fixture(scope="module")
def prompts(cache: Path) -> list[dict]:
    return read(SourceParams(), cache)


def test_the_packaged_prompts_are_all_there(prompts):
    assert len(prompts) == len({row["id"] for row in prompts}) == 569
    assert {row["speaker"] for row in prompts} == {"Allison"}
    broken = [row for row in prompts if row["problem"]]
    assert [row["file"] for row in broken] == ["pls-try-call-later.g722"]
    assert "has no recording of it" in broken[0]["problem"] and broken[0]["audio"] is None
    assert sum(audio.duration_of(row["audio"]) for row in prompts if row["audio"]) / 60 == pytest.approx(25.5, abs=0.1)
    by_file = {row["file"]: row for row in prompts}
    one = by_file["digits/1.g722"]
    assert (one["text"], one["sentence"], len(audio.decode(one["audio"]))) == ("one", "one", 14_580)
    assert by_file["vm-goodbye.g722"]["text"] == "Goodbye"


def test_tones_and_silence_come_along_for_clean_to_set_aside(prompts):
    usable = [row for row in prompts if row["audio"] and speakable(row["text"]) is None]
    assert len(usable) == 549 and len({row["sentence"] for row in usable}) == 506
    others = {row["file"].removesuffix(".g722") for row in prompts if speakable(row["text"])}
    assert len(others) == 19 and {"beep", "tt-monkeys", "silence/10", "vm-intro", "spy-iax2"} < others
    assert all(row["sentence"] for row in prompts)
    assert all(row["sentence"] == normalise(row["text"]) for row in usable)


def test_a_sample_has_whole_sentences_and_is_the_same_in_every_larger_one(prompts, cache):
    few = read(SourceParams(limit=60), cache)
    assert 50 < len(few) <= 60 and all(row in prompts for row in few)
    chosen = {row["sentence"] for row in few}
    assert few == [row for row in prompts if row["sentence"] in chosen]
    assert [row["id"] for row in read(SourceParams(limit=30), cache)] == [
        row["id"] for row in read(SourceParams(limit=30), cache)
    ]
    assert {row["id"] for row in read(SourceParams(limit_groups=9), cache)} < {row["id"] for row in few}


def test_they_are_decoded_in_seconds(cache):
    began = time.perf_counter()
    read(SourceParams(), cache)
    assert time.perf_counter() - began < 60  # measured: 2 to 4 s


def test_without_the_packages_the_message_names_them_and_another_way(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        StageFailed, match=r"Debian's package asterisk-core-sounds-en .*apt-get.* set kind \(table, libri"
    ):
        read(SourceParams(), tmp_path)


SOUNDS = [saved(speechlike(0.4, seed)) for seed in range(3)]


@pytest.fixture
def table(tmp_path: Path) -> dict:
    """Three recordings in a folder, one of them in a codec of telephones, and a table that names them."""
    folder = tmp_path / "calls"
    folder.mkdir()
    names = ["a.wav", "b.wav", "c.g722"]
    for name, data in zip(names, [*SOUNDS[:2], converted(speechlike(0.4, 2), "g722", "g722")], strict=True):
        (folder / name).write_bytes(data)
    texts = ["Press one.", "press 1", "Goodbye."]
    with (tmp_path / "calls.csv").open("w", newline="") as stream:
        lines = zip(names, texts, ["ann", "bob", "ann"], ["2020-01-01"] * 3, "xyz", strict=True)
        csv.writer(stream).writerows([("audio", "text", "who", "when", "key"), *lines])
    return {"kind": "table", "path": str(tmp_path / "calls.csv"), "recordings": str(folder)}


def test_a_table_of_ones_own_recordings(table):
    rows = read(SourceParams(**table, speaker="who", time="when", id="key"))
    assert [row["id"] for row in rows] == ["x", "y", "z"] and not any(row["problem"] for row in rows)
    assert [row["sentence"] for row in rows] == [
        "press one",
        "press one",
        "goodbye",
    ]  # one group, however it is written
    assert [row["speaker"] for row in rows] == ["ann", "bob", "ann"] and rows[0]["event_time"].year == 2020
    assert [row["audio"] for row in rows[:2]] == SOUNDS[:2]
    assert rows[2]["audio"].startswith(b"fLaC") and audio.duration_of(rows[2]["audio"]) == pytest.approx(0.4, abs=0.01)
    assert source.files(SourceParams(**table)) == [table["path"], table["recordings"]]
    unnamed = read(SourceParams(**table))
    assert len({row["id"] for row in unnamed}) == len({row["event_time"] for row in unnamed}) == 3
    assert [row["id"] for row in read(SourceParams(**table))] == [row["id"] for row in unnamed]
    few = read(SourceParams(**table, limit=2))
    assert {row["sentence"] for row in few} in ({"press one"}, {"goodbye"}) and all(row in unnamed for row in few)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"audio": "none.wav"}, "there is no recording 'none.wav'"),
        ({"audio": "bad.m4a"}, "no sound can be read from the mov file"),
        ({"text": 7}, "text: 7 is not text"),
        ({"when": "soon"}, "when: 'soon' is not a time"),
        ({"key": None}, "key: no id"),
    ],
)
def test_a_fault_in_a_row_is_named_and_costs_that_row(tmp_path, line, said):
    (tmp_path / "good.wav").write_bytes(SOUNDS[0])
    (tmp_path / "bad.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(40))
    good = {"audio": "good.wav", "text": "Press one.", "when": "2020-01-01", "key": "a"}
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ({**good, "key": "b", **line}, good)))
    params = SourceParams(kind="table", path=str(tmp_path / "t.jsonl"), recordings=str(tmp_path), time="when", id="key")
    bad, fine = read(params)
    assert said in bad["problem"] and "t.jsonl line 1" in bad["problem"] and bad["id"]
    assert fine["problem"] is None and fine["audio"] == SOUNDS[0]


def test_librispeech_and_common_voice(tmp_path):
    chapter = tmp_path / "libri/84/1"
    chapter.mkdir(parents=True)
    (chapter / "84-1.trans.txt").write_text("84-1-0 PRESS ONE\n84-1-1 GOODBYE\n")
    (chapter / "84-1-0.flac").write_bytes(saved(speechlike(0.3), "FLAC"))
    first, second = read(SourceParams(kind="librispeech", path=str(tmp_path / "libri")))
    assert (first["text"], first["sentence"], first["speaker"]) == ("PRESS ONE", "press one", "84")
    assert first["file"] == "84/1/84-1-0.flac" and first["problem"] is None
    assert "there is no recording" in second["problem"] and second["sentence"] == "goodbye"
    clips = tmp_path / "cv/clips"
    clips.mkdir(parents=True)
    (clips / "a.mp3").write_bytes(saved(speechlike(1.0), "MP3"))
    (tmp_path / "cv/train.tsv").write_text("client_id\tpath\tsentence\nw\ta.mp3\tPress one.\n")
    (row,) = read(SourceParams(kind="common_voice", path=str(tmp_path / "cv"), clips="train.tsv"))
    assert (row["text"], row["speaker"], row["problem"]) == ("Press one.", "w", None)


def test_what_does_not_go_together_is_refused():
    for wrong in (
        {"kind": "table"},
        {"path": "x"},
        {"kind": "librispeech", "path": ["a", "b"]},
        {"kind": "librispeech", "path": "a", "recordings": "b"},
        {"kind": "table", "path": "a", "clips": "b.tsv"},
        {"speaker": "who"},
        {"kind": "wav"},
    ):
        with pytest.raises(ValidationError):
            SourceParams(**wrong)
    assert source.files(SourceParams()) == []


def test_feedback_becomes_rows_and_faults_in_it_are_named(tmp_path, table):
    line = {"id": "p1", "event_time": "2026-01-01T00:00:00Z", "text": "Press 1!"}
    good = {**line, "audio": {"$base64": base64.b64encode(SOUNDS[0]).decode()}}
    lines = [
        good,
        {**good, "id": "p2", "audio": "x"},
        {**good, "id": "p3", "text": " "},
        {**good, "id": "p4", "text": 1},
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "raw"
    raw(out=out, params=RawParams(**table), source=source, cache=tmp_path, labels=tmp_path / "labels.jsonl")
    rows = {row["id"]: row for row in Dataset(out).read().to_pylist() if row["origin"] == "feedback"}
    fine = rows["feedback-p1"]
    assert (fine["audio"], fine["text"], fine["sentence"]) == (SOUNDS[0], "Press 1!", "press one")
    assert "audio: the bytes of a recording are needed" in rows["feedback-p2"]["problem"]
    assert "needs its text" in rows["feedback-p3"]["problem"]
    assert "text: 1 is not text" in rows["feedback-p4"]["problem"]
