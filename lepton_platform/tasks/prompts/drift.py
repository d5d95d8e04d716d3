"""What can drift in recordings of speech: level, noise, line, voice, language, and what is heard in them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.data import audio, transcripts
from lepton_platform.data.audio_statistics import descriptors, statistics
from lepton_platform.monitoring.signals import Signals
from lepton_platform.tasks.prompts.preprocess import CONTENT, GROUP, TEXT, decode

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["GROUP", "answers", "counted", "inputs"]

UNHEARD = "words_a_second"  # needs the recording: as it was sent it may begin and end with silence
SAID = "said"  # what is answered, in a table that has the true text too


def inputs(rows: "pa.Table", downloads: Path) -> Signals:
    """What can be measured in a recording, and its descriptor; ``rows`` (N, …) has the column ``audio``."""
    recordings = [_mended(data) for data in rows[CONTENT].to_pylist()]
    return Signals(statistics(recordings), vectors={"descriptor": descriptors(recordings)})


def answers(rows: "pa.Table") -> Signals:
    """Of what is heard: how sure the model is, how many words and how many a second, how long, how many of them different.

    A model that has lost its way says nothing, or the same again and again. ``rows`` has ``text`` (held-out rows:
    ``said``, as ``text`` is the truth there) and ``score``; and ``seconds`` of the recording as the model heard it, or
    ``audio``, or ``duration_s`` as it was sent.
    """
    heard = rows[SAID if SAID in rows.column_names else TEXT].to_pylist()
    words = [transcripts.words(text or "") for text in heard]
    counts = np.array([len(found) for found in words], dtype=np.float64)
    letters = np.array([sum(map(len, found)) for found in words], dtype=np.float64)
    different = np.array([len(set(found)) for found in words], dtype=np.float64)
    return Signals(
        {
            "score": rows["score"].to_numpy().astype(np.float64),
            "words": counts,
            UNHEARD: counts / np.maximum(_seconds(rows), audio.MIN_SECONDS),
            "letters_a_word": letters / np.maximum(counts, 1),
            "different_words": different / np.maximum(counts, 1),
        }
    )


def counted(rows: "pa.Table") -> Signals:
    """Of every row of the log, without its recording."""
    found = answers(rows).numbers
    return Signals({name: values for name, values in found.items() if name != UNHEARD})


def _mended(data: bytes) -> "NDArray[np.float32]":
    """As the model hears it; the log has recordings as they were sent."""
    return audio.mend(decode(data)).samples


def _seconds(rows: "pa.Table") -> "NDArray[np.float64]":
    if "seconds" in rows.column_names:
        return rows["seconds"].to_numpy().astype(np.float64)
    if CONTENT in rows.column_names:
        return np.array([len(_mended(data)) / audio.RATE for data in rows[CONTENT].to_pylist()])
    return rows["duration_s"].to_numpy().astype(np.float64)
