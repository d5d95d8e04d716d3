"""How a recording of speech is cleaned and turned into features: what training AND the service run.

Cheap to import: the service reads it at its start.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lepton_platform.data import audio, fingerprint, transcripts
from lepton_platform.data.audio import canonical as normalise
from lepton_platform.data.audio import decode
from lepton_platform.data.audio_statistics import STATISTICS, descriptors, statistics
from lepton_platform.features.views import Column, Entity, FeatureView, Given
from lepton_platform.stage import Params

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["decode", "identity", "normalise", "shingles", "size", "usable", "written"]

CONTENT = "audio"  # what is learnt from: a recording's file, after cleaning a FLAC at 16 kHz
TEXT = "text"  # what is learnt: what is said in it, as people write it
LABEL = None  # a text is not one of a few
LABELS = None
GROUP = "sentence"  # what is said, as texts are compared: no sentence is in two splits
REQUIRED = ("audio", "text", "sentence")
IMPUTE: Mapping[str, str] = {}
RANGES: Mapping[str, tuple[float, float]] = {}

MOST_CLIPPED = 0.02  # of the samples; ordinary recordings have a thousandth at the most
MOST_LETTERS_PER_S = 25.0  # nobody speaks so fast
SLOWEST_S, SLOWEST_LETTERS_PER_S = 3.0, 3.0  # a letter alone may take three seconds, a sentence a third a letter more
LETTERS_OF_FIGURE = 4  # "seven", "one hundred"
_ASIDE = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>|\.{2,}|…")


def size(content: bytes) -> float:
    """Milliseconds: what ``clean.min_size`` and ``max_size`` count."""
    return audio.duration_of(content) * 1_000


def identity(content: bytes) -> str:
    """Recordings with the same identity have the same samples, whatever wrote their file."""
    return hashlib.sha256(decode(content).tobytes()).hexdigest()


def shingles(content: bytes) -> set[str]:
    """A recording's fingerprint: the sets whose overlap says how alike two recordings are.

    Of two of one voice that say different things at most 0.55 ("G" and "D"), mostly less than 0.25; of a copy that was
    made louder, cut or padded at its ends, compressed, or sent over a telephone, seldom less than 0.7.
    """
    return fingerprint.shingles(decode(content))


def written(text: str) -> str:
    """A text as it is learnt: without signs in brackets ("dollar [$]"), without dots for what goes before or follows
    ("... callers waiting"), without double spaces, a telephone's keys as they are said. Total and idempotent."""
    return " ".join(transcripts.spoken(_ASIDE.sub(" ", text)).split())


def usable(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """A reason and a detail where nobody can have said the text in this recording, or the recording is of no use."""
    if said := transcripts.speakable(row[TEXT]):
        return "unspeakable", said
    try:
        samples = audio.mend(decode(row[CONTENT])).samples
    except ValueError:
        return None  # `normalise` will say why
    found = {
        name: float(values[0]) for name, values in statistics([samples], ("silence_share", "clipped_share")).items()
    }
    if found["silence_share"] == 1:
        return "silent", f"nothing in it is louder than {audio.QUIET_DBFS:g} dB of full scale"
    if found["clipped_share"] > MOST_CLIPPED:
        return "clipped", f"{found['clipped_share']:.1%} of its samples are at the limit: it was recorded too loud"
    return _pace(row[TEXT], len(samples) / audio.RATE)


def _pace(text: str, seconds: float) -> tuple[str, str] | None:
    figures = sum(map(str.isdigit, text))
    letters = sum(map(str.isalnum, text)) - figures
    if letters + figures > MOST_LETTERS_PER_S * seconds:
        return "too_fast", f"{letters + figures} letters and figures in {seconds:.1f} s: not all of the text is said"
    if seconds > SLOWEST_S + (letters + LETTERS_OF_FIGURE * figures) / SLOWEST_LETTERS_PER_S:
        return "too_slow", f"{letters + figures} letters and figures in {seconds:.1f} s: more is said than the text"
    return None


def _recordings(rows: "pa.Table") -> "list[NDArray[np.float32]]":
    return [decode(data) for data in rows[CONTENT].to_pylist()]


def statistics_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    found = statistics(_recordings(rows))
    words = [len(transcripts.words(text)) for text in rows[TEXT].to_pylist()]
    return {**found, "speaking_rate": words / found["seconds"]}


def descriptor_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    return {"descriptor": _vectors(descriptors(_recordings(rows)))}


class EmbeddingParams(Params):
    """How recordings are embedded."""

    encoder: str = "whisper-tiny-en"  # the packaged one; or a folder, or a hub's name


def embedding_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    from lepton_platform.models.pretrained import speech
    from lepton_platform.models.speech_embedding import embed

    folder = speech(given.params.encoder, given.cache)
    return {"embedding": _vectors(embed(_recordings(rows), folder, progress=given.progress))}


def _vectors(found: "NDArray[np.float32]") -> "pa.Array":
    """(N, D) as Arrow has it."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1])


_PROMPT = Entity("prompt_id", "id", "One recording, by its stable id.")
FEATURE_VIEWS = (
    FeatureView(
        name="audio_statistics",
        entity=_PROMPT,
        columns=(
            *(Column(name, "float32", said) for name, said in STATISTICS.items()),
            Column("speaking_rate", "float32", "Words a second, as texts are compared: a number is one word."),
        ),
        function=statistics_of,
        reads=(CONTENT, TEXT),
        description="What can be measured in a recording: level, noise, band, voice, pace.",
        owner="prompts",
    ),
    FeatureView(
        name="audio_descriptor",
        entity=_PROMPT,
        columns=(
            Column("descriptor", "float32[]", "Sounds, their changes and their pace, of length one; nothing learnt."),
        ),
        function=descriptor_of,
        reads=(CONTENT,),
        description="What a recording sounds like, by a fixed recipe.",
        owner="prompts",
    ),
    FeatureView(
        name="audio_embedding",
        entity=_PROMPT,
        columns=(Column("embedding", "float32[]", "Mean of what a speech encoder hears, of length one."),),
        function=embedding_of,
        reads=(CONTENT,),
        description="What is said in a recording, as a speech encoder hears it.",
        owner="prompts",
        params=EmbeddingParams,
    ),
)
