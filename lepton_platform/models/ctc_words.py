"""The likeliest words at every step's characters and in a language model: beam search by flashlight-text. No torch.

What is looked for is the sequence of known words W with the highest ln P(characters of W | sound) + lm_weight · log10 P(W) +
word_score · |W| (Kahn et al., 2022, arXiv:2201.12465; the search is Hannun et al.'s, 2014, arXiv:1408.2873). The words that
are known are the language model's: no other is ever said.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.ctc import BLANK, SPACE, Decode
from lepton_platform.models.ngram import UNKNOWN, vocabulary

_THRESHOLD = 50.0  # nats; what is further behind the best is dropped
_IMPOSSIBLE = -1e4  # the logarithm of what is not possible; infinities would not add up


def word_beam(language_model: Path, alphabet: Sequence[str], options: Mapping[str, Any]) -> Decode:
    """``language_model``: an ARPA file. ``options``: ``beam`` (beginnings that are kept), ``lm_weight``, ``word_score``."""
    weights = int(options["beam"]), float(options["lm_weight"]), float(options["word_score"])
    return _loaded(str(language_model), language_model.stat().st_mtime_ns, tuple(alphabet), *weights).labels


class _Search:
    """Words spelled as a tree, the language model, and what a beam is allowed."""

    def __init__(self, path: str, alphabet: tuple[str, ...], beam: int, lm_weight: float, word_score: float) -> None:
        from flashlight.lib.text.decoder import CriterionType, LexiconDecoderOptions, SmearingMode, Trie
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        number = {character: n for n, character in enumerate(alphabet)}
        known = vocabulary(Path(path).read_text(encoding="utf-8"))
        self.space = number[SPACE]
        self.spelled = [[number[character] for character in word] for word in known]
        words = Dictionary([*known, UNKNOWN])
        self.unknown = words.get_index(UNKNOWN)
        with _silent():
            self.model = KenLM(path, words)
        self.tree = Trie(len(alphabet), self.space)
        start = self.model.start(False)
        for n, spelling in enumerate(self.spelled):
            _, score = self.model.score(start, n)
            self.tree.insert([*spelling, self.space], n, score)
        self.tree.smear(SmearingMode.MAX)
        self.options = LexiconDecoderOptions(
            beam_size=beam,
            beam_size_token=len(alphabet),
            beam_threshold=_THRESHOLD,
            lm_weight=lm_weight,
            word_score=word_score,
            unk_score=-np.inf,
            sil_score=0.0,
            log_add=True,
            criterion_type=CriterionType.CTC,
        )

    def labels(self, log_probs_TC: NDArray) -> list[int]:
        """The words' characters, a space between two."""
        from flashlight.lib.text.decoder import LexiconDecoder

        ended = self._ended(log_probs_TC)
        decoder = LexiconDecoder(
            self.options, self.tree, self.model, self.space, BLANK, self.unknown, [], False
        )  # it holds beams: each recording has its own
        results = decoder.decode(ended.ctypes.data, *ended.shape)
        words = [word for word in results[0].words if word >= 0] if results else []
        spelled = [label for word in words for label in (self.space, *self.spelled[word])]
        return spelled[1:]

    def _ended(self, log_probs_TC: NDArray) -> NDArray[np.float32]:
        """With one step more, which says a space: in the tree that ends a word, the last one too."""
        found = np.full((len(log_probs_TC) + 1, log_probs_TC.shape[1]), _IMPOSSIBLE, dtype=np.float32)
        found[:-1] = log_probs_TC
        found[-1, self.space] = 0.0
        return found


@lru_cache(maxsize=4)
def _loaded(
    path: str, changed_ns: int, alphabet: tuple[str, ...], beam: int, lm_weight: float, word_score: float
) -> _Search:
    del changed_ns  # a part of the key: another file of that name is another language model
    return _Search(path, alphabet, beam, lm_weight, word_score)


@contextmanager
def _silent() -> Iterator[None]:
    """KenLM draws a bar on the process's own stderr, where a log is one line an event."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
