"""Recordings as people keep them: tables, LibriSpeech, Common Voice, files of other codecs; a fault costs one row."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data import audio, recordings
from lepton_platform.data.audio_conversion import as_recording
from lepton_platform.data.recordings import common_voice, librispeech, manifest
from lepton_platform.stage import StageFailed
from tests.data.sounds import RATE, converted, likeness, saved, speechlike

SOUNDS = [saved(speechlike(0.5, seed)) for seed in range(3)]
TEXTS = ["Press one.", "Press two.", "Goodbye."]


def written(folder: Path, names: list[str]) -> Path:
    for name, data in zip(names, SOUNDS, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def parquet(path: Path, sounds: list) -> str:
    pq.write_table(pa.table({"sound": sounds, "said": TEXTS, "who": [7, 7, None], "key": ["a", "b", "c"]}), path)
    return str(path)


def test_a_table_holds_the_recordings_or_names_them(tmp_path):
    plain = parquet(tmp_path / "plain.parquet", SOUNDS)
    hub = parquet(tmp_path / "hub.parquet", [{"bytes": data, "path": f"{n}.wav"} for n, data in enumerate(SOUNDS)])
    written(tmp_path / "clips", ["x/0.wav", "x/1.wav", "x/2.wav"])
    for name, delimiter in (("named.csv", ","), ("named.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as stream:
            rows = [
                (f"x/{n}.wav", text, who, key) for n, text, who, key in zip("012", TEXTS, "77-", "abc", strict=True)
            ]
            csv.writer(stream, delimiter=delimiter).writerows([("sound", "said", "who", "key"), *rows])
    lines = [json.dumps({"sound": f"x/{n}.wav", "said": text, "who": 7, "key": "a"}) for n, text in enumerate(TEXTS)]
    (tmp_path / "named.jsonl").write_text("\n".join(lines))
    for path in (plain, hub, *(str(tmp_path / f"named.{end}") for end in ("csv", "tsv", "jsonl"))):
        found = list(manifest([path], "sound", "said", "who", ["key"], str(tmp_path / "clips")))
        assert [row.read() for row in found] == SOUNDS and [row.text for row in found] == TEXTS, path
        assert not any(row.problem for row in found) and found[0].speaker == "7" and found[0].values == {"key": "a"}
    assert [row.file for row in manifest([hub], "sound", "said")] == ["0.wav", "1.wav", "2.wav"]
    (missing,) = {row.speaker for row in manifest([plain], "sound", "said")}
    assert missing is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"audio": "none.wav"}, "audio: there is no recording 'none.wav' in the folder source.recordings"),
        ({"audio": "../secret.wav"}, "leads out of the folder source.recordings"),
        ({"audio": "x" * 5_000}, "there is no recording"),
        ({"audio": 7}, "7 is neither a recording's bytes nor its path"),
        ({"text": ["a"]}, "text: ['a'] is not text"),
    ],
)
def test_a_fault_in_a_row_is_named_and_costs_that_row(tmp_path, line, said):
    written(tmp_path / "clips", ["good.wav"])
    good = {"audio": "good.wav", "text": "Press one."}
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ({**good, **line}, good)))
    bad, fine = manifest([str(tmp_path / "t.jsonl")], "audio", "text", recordings=str(tmp_path / "clips"))
    assert said in (bad.problem or "") and "t.jsonl line 1" in (bad.problem or "")
    assert fine.problem is None and fine.read() == SOUNDS[0]


def test_files_are_opened_when_they_are_asked_for_and_not_when_they_are_huge(tmp_path, monkeypatch):
    folder = written(tmp_path, ["a.wav", "b.wav"])
    (tmp_path / "t.csv").write_text("audio,text\na.wav,one\nb.wav,two\n")
    first, second = manifest([str(tmp_path / "t.csv")], "audio", "text", recordings=str(folder))
    (folder / "a.wav").unlink()
    with pytest.raises(ValueError, match="the recording cannot be read"):
        first.read()
    monkeypatch.setattr(recordings, "MAX_FILE_BYTES", 1 << 10)
    with pytest.raises(ValueError, match=r"has 0\.0 MiB; at most 0\.000976562 MiB"):
        second.read()


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    """Two chapters of one speaker, as LibriSpeech lies on a disk."""
    root = tmp_path / "LibriSpeech/dev-clean"
    for chapter, lines in {"1": ["84-1-0000 PRESS ONE", "84-1-0001 PRESS TWO"], "2": ["84-2-0000 GOODBYE"]}.items():
        folder = root / "84" / chapter
        folder.mkdir(parents=True)
        (folder / f"84-{chapter}.trans.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            (folder / f"{line.split()[0]}.flac").write_bytes(saved(speechlike(0.3), "FLAC"))
    return tmp_path / "LibriSpeech"


def test_librispeech_is_read_as_it_is_unpacked(libri):
    found = list(librispeech(str(libri)))
    assert [row.text for row in found] == ["PRESS ONE", "PRESS TWO", "GOODBYE"]
    assert {row.speaker for row in found} == {"84"} and not any(row.problem for row in found)
    assert found[2].file == "dev-clean/84/2/84-2-0000.flac" and found[2].where == "dev-clean/84/2/84-2.trans.txt line 1"
    assert audio.duration_of(found[0].read() or b"") == pytest.approx(0.3)
    assert len(list(librispeech(str(libri / "dev-clean/84/2")))) == 1  # any part of it, too


def test_what_librispeech_lacks_is_a_problem_of_that_recording(libri):
    chapter = libri / "dev-clean/84/1"
    (chapter / "84-1-0000.flac").unlink()
    (chapter / "84-1-0009.flac").write_bytes(SOUNDS[0])
    with (chapter / "84-1.trans.txt").open("ab") as stream:
        stream.write(b"\n../../x PRESS\n84-1-0001\n84-1-0001 PR\xffSS\n")
    found = list(librispeech(str(libri)))
    assert [row.problem and row.problem.split(": ", 1)[1] for row in found] == [
        "there is no recording '84-1-0000.flac' in the folder source.path",
        None,
        "'../../x.flac' leads out of the folder source.path",
        None,
        "bytes that are not utf-8",
        None,
        "no line of a .trans.txt has its text",
    ]
    assert found[3].text is None and found[-1].file == "dev-clean/84/1/84-1-0009.flac"
    with pytest.raises(StageFailed, match=r"holds no <speaker>/<chapter>/<speaker>-<chapter>\.trans\.txt"):
        list(librispeech(str(libri / "dev-clean/84/none")))


HEAD = "client_id\tpath\tsentence\tup_votes\n"


def voices(folder: Path, rows: str, name: str = "validated.tsv") -> str:
    written(folder / "clips", ["a.mp3", "b.mp3", "c.mp3"])
    (folder / name).write_bytes((HEAD + rows).encode("utf-8", "surrogateescape"))
    return str(folder)


def test_common_voice_is_read_as_it_is_unpacked(tmp_path):
    folder = voices(tmp_path, 'w1\ta.mp3\t"Press one," he said.\t2\nw2\tb.mp3\t"Press two.\t2\r\nw1\tc\tGoodbye.\t2\n')
    found = list(common_voice(folder))
    assert [row.text for row in found] == ['"Press one," he said.', '"Press two.', "Goodbye."]
    assert [row.speaker for row in found] == ["w1", "w2", "w1"] and not any(row.problem for row in found)
    assert [row.read() for row in found] == SOUNDS and found[2].file == "clips/c.mp3"
    voices(tmp_path, "w1\ta.mp3\tA\t2\n", "train.tsv")
    assert len(list(common_voice(folder, "train.tsv"))) == 1


def test_what_common_voice_lacks_is_a_problem_of_that_row(tmp_path):
    rows = "w\tz.mp3\tA\t2\nw\ta.mp3\tB\nw\t../x.mp3\tC\t2\nw\ta.mp3\tD\udcff\t2\nw\ta.mp3\tE\t2\nw\ta.mp3\t\t2\n"
    found = list(common_voice(voices(tmp_path, rows)))
    assert [row.problem for row in found] == [
        "validated.tsv row 1: there is no recording 'z.mp3' in the folder source.path",
        "validated.tsv row 2: 3 cells under 4 headings",
        "validated.tsv row 3: '../x.mp3' leads out of the folder source.path",
        "validated.tsv row 4: bytes that are not utf-8",
        None,
        None,
    ]
    assert found[5].text is None
    with pytest.raises(StageFailed, match=r"has no other\.tsv, as Common Voice does"):
        list(common_voice(str(tmp_path), "other.tsv"))
    (tmp_path / "odd.tsv").write_text("path\tclient_id\na.mp3\tw\n")
    with pytest.raises(StageFailed, match=r"has no column sentence\. It has: path, client_id"):
        list(common_voice(str(tmp_path), "odd.tsv"))


VOICE = speechlike(1.0)
OTHERS = {
    "prompt.g722": converted(VOICE, "g722", "g722"),
    "memo.m4a": converted(VOICE, "ipod", "aac"),
    "call.webm": converted(speechlike(1.0, rate=48_000), "webm", "libopus", 48_000),
    "call.aac": converted(VOICE, "adts", "aac"),
    "old.aiff": converted(speechlike(1.0, rate=8_000), "aiff", "pcm_s16be", 8_000),
    "old.au": converted(VOICE, "au", "pcm_s16be"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_codecs_that_the_service_does_not_read_become_flac(name):
    found = as_recording(OTHERS[name], name)
    assert found.startswith(b"fLaC") and as_recording(OTHERS[name], name) == found
    samples = audio.decode(found)
    assert abs(len(samples) - RATE) < RATE * 0.1 and likeness(samples, VOICE) > 0.8
    half = audio.decode(as_recording(OTHERS["prompt.g722"][:4_000], "prompt.g722"))
    assert len(half) == RATE // 2


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_what_the_service_reads_is_taken_as_it_is_whatever_it_is_called(kind):
    data = saved(VOICE, kind)
    for name in ("a.wav", "a.m4a", ""):
        assert as_recording(data, name) is data
    if kind != "MP3":  # whose frames could be G.722's
        assert as_recording(data, "a.g722") is data
    text = b"Dear diary" * 9
    assert as_recording(text, "a.wav") is text


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(OTHERS)), st.integers(0, 20_000))
def test_any_bytes_are_sound_or_a_value_error(junk, name, at):
    good = OTHERS[name]
    at = at % len(good)
    for data in (good[:at], good[:at] + junk + good[at + len(junk) :], good[:12] + junk, junk):
        try:
            audio.decode(as_recording(data, name))
        except ValueError as error:
            assert str(error) and "\n" not in str(error)


def test_a_small_file_that_holds_hours_is_refused_and_not_cut():
    assert audio.duration_of(as_recording(bytes(8_000 * 100), "a.g722")) == 100
    with pytest.raises(ValueError, match="longer than the 600 s"):
        as_recording(bytes(8_000 * 3_600), "a.g722")


def test_importing_it_opens_no_codec():
    code = "import sys, lepton_platform.data.recordings; print({'av', 'soundfile', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
