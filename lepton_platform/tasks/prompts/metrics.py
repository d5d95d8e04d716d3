"""How good is good enough for prompts: better than hidden Markov models that know what prompts are about."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.data.audio import duration_of
from lepton_platform.data.transcripts import letters, normalise
from lepton_platform.tasks.prompts.preprocess import CONTENT, GROUP, TEXT, decode
from lepton_platform.training.adapted_ngrams import arpa
from lepton_platform.training.figures import Slice
from lepton_platform.training.transcription import Transcription

if TYPE_CHECKING:
    from pocketsphinx import Decoder

_SECONDS = (0.0, 1.0, 3.0, np.inf)
_SNR = "audio_statistics__snr_db"  # a feature; the rows of a training set have it where its view is materialised
_SNR_DB = (-np.inf, 20.0, 40.0, np.inf)
_VOCABULARY = (
    20_000  # words of general English; of 5,000, 10,000, 20,000 and all 72,544 the best on the validation prompts
)


def hidden_markov_models(train: pa.Table, rows: pa.Table) -> list[str]:
    """What pocketsphinx hears (Huggins-Daines et al. 2006): what the network has to beat.

    Its acoustic model of US English as it comes, and trigrams of the training texts over the likeliest words of its own
    language model. A recording's answer depends on no other recording.
    """
    from pocketsphinx import Decoder

    general = Decoder(loglevel="FATAL")
    with TemporaryDirectory() as folder:
        model = Path(folder) / "prompts.arpa"
        model.write_text(_language_model(train[TEXT].to_pylist(), general), encoding="utf-8")
        decoder = Decoder(lm=str(model), loglevel="FATAL")
    return [_heard(decoder, decode(data)) for data in rows[CONTENT].to_pylist()]


def _heard(decoder: "Decoder", samples: NDArray[np.float32]) -> str:
    decoder.reinit_feat()  # forgets the noise of the recording before
    decoder.start_utt()
    decoder.process_raw(np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr if found else ""


def _language_model(texts: Sequence[str | None], decoder: "Decoder") -> str:
    """Of the texts' words that can be pronounced; the others cannot be answered."""
    language, logarithms = decoder.get_lm(), decoder.get_logmath()
    dictionary = Path(decoder.config["dict"]).read_text(encoding="utf-8").splitlines()
    known = {line.partition(" ")[0] for line in dictionary}
    chances = {
        word: logarithms.exp(language.prob([word])) for word in known if "(" not in word
    }  # "a(2)": said otherwise
    likeliest = sorted(chances, key=lambda word: (-chances[word], word))[:_VOCABULARY]
    sentences = [[word for word in letters(text or "").split() if word in known] for text in texts]
    return arpa(sentences, {word: chances[word] for word in likeliest})


def slices(rows: pa.Table) -> list[Slice]:
    """By length, and by how far speech is above the noise where that was measured."""
    parts = _between("seconds", np.array([duration_of(data) for data in rows[CONTENT].to_pylist()]), _SECONDS)
    if _SNR in rows.column_names:
        parts += _between("SNR in dB", np.array(rows[_SNR].to_pylist(), dtype=np.float64), _SNR_DB)
    return parts


def _between(dimension: str, sizes: NDArray[np.float64], bounds: Sequence[float]) -> list[Slice]:
    """``bounds`` rise; a size on a bound belongs to the part above. What is not known (NaN) is in no part."""
    parts = []
    for number, (low, high) in enumerate(pairwise(bounds)):
        name = f"under {high:g}" if not number else f"{low:g} or more" if np.isinf(high) else f"{low:g} to {high:g}"
        parts.append(Slice(dimension, name, (sizes >= low) & (sizes < high)))
    return parts


EVALUATOR = Transcription(
    text=TEXT,
    group=GROUP,  # what is said makes a prompt hard, whoever says it
    normalise=normalise,
    yardstick_name="pocketsphinx",
    yardstick_texts=hidden_markov_models,
    slices=slices,
)
