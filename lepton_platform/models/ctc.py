"""From the probabilities of characters at every step to words and their times. numpy only.

A labelling's probability is the sum over all paths that become it when repeated characters are made one and blanks are
taken out (connectionist temporal classification; Graves et al., 2006). The same code answers in training's evaluation, for
the compressed graph and in the service.

Times are those of the likeliest path that says what was decided on: a character's steps are where the network is sure of
it, which is within its sound but seldom all of it.

Letters in names are shapes: B rows, N samples, T steps, C characters with the blank, L labels.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.graph import MODEL, Run
from lepton_platform.models.speech_input import seconds_of
from lepton_platform.models.transcription import Transcript, Word

BLANK = 0  # its number among the characters
SPACE = " "
Decode = Callable[[NDArray], list[int]]  # logarithms of probabilities (T, C) → labels without blanks


def transcripts(run: Mapping[str, Run], audio_BN: NDArray, config: Mapping[str, Any], folder: Path) -> NDArray:
    """(B,) of ``Transcript``. ``config``: alphabet, step_s and decoder; ``folder`` holds the language model, if there is one."""
    log_probs_BTC, steps_B = run[MODEL]({"audio": audio_BN})
    decode = _decoder(config, folder)
    found = np.empty(len(audio_BN), dtype=object)
    for row, seconds in enumerate(seconds_of(audio_BN)):
        log_probs_TC = np.asarray(log_probs_BTC[row, : int(steps_B[row])], dtype=np.float32)
        found[row] = transcript(log_probs_TC, decode(log_probs_TC), config["alphabet"], config["step_s"], seconds)
    return found


def _decoder(config: Mapping[str, Any], folder: Path) -> Decode:
    chosen = config["decoder"]
    if chosen["kind"] == "greedy":
        return greedy
    if chosen["kind"] == "beam":
        return lambda log_probs_TC: prefix_beam(log_probs_TC, chosen["beam"])
    from lepton_platform.models.ctc_words import word_beam

    return word_beam(folder / chosen["language_model"], config["alphabet"], chosen)


def greedy(log_probs_TC: NDArray) -> list[int]:
    """The labelling of the likeliest path."""
    path_T = log_probs_TC.argmax(axis=1) if len(log_probs_TC) else np.zeros(0, dtype=np.intp)
    changed_T = np.diff(path_T, prepend=-1) != 0
    return path_T[changed_T & (path_T != BLANK)].tolist()


def prefix_beam(log_probs_TC: NDArray, width: int, least: float = 1e-4) -> list[int]:
    """The likeliest labelling, of all paths together (Graves, 2012, §7.5.3; Hannun et al., 2014, arXiv:1408.2873).

    ``width``: beginnings that are kept at every step. ``least``: characters less probable than it are not tried. Exact
    where nothing is dropped.
    """
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}  # ends in a blank, ends in its last label
    for probs_C in np.exp(np.asarray(log_probs_TC, dtype=np.float64)):
        chances = probs_C.tolist()
        tried = [label for label in np.flatnonzero(probs_C >= least).tolist() if label != BLANK]
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, label) in beams.items():
            ends = grown.setdefault(prefix, [0.0, 0.0])
            ends[0] += (blank + label) * chances[BLANK]
            if prefix:
                ends[1] += label * chances[prefix[-1]]
            for following in tried:
                again = prefix and following == prefix[-1]  # only a blank between makes two of one
                longer = grown.setdefault((*prefix, following), [0.0, 0.0])
                longer[1] += (blank if again else blank + label) * chances[following]
        best = sorted(grown.items(), key=lambda item: (-sum(item[1]), item[0]))[:width]
        scale = sum(best[0][1]) or 1.0  # only ratios count, and a long product would vanish
        beams = {prefix: (ends[0] / scale, ends[1] / scale) for prefix, ends in best}
    return list(next(iter(beams)))


def aligned(log_probs_TC: NDArray, labels: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(L,) and (L,): the first step of every label on the likeliest path that says them all, and the one after its last.

    By Viterbi's algorithm. ``ValueError`` where there are too few steps to say them.
    """
    with_blanks_S = np.full(2 * len(labels) + 1, BLANK, dtype=np.intp)
    with_blanks_S[1::2] = labels
    skips_S = np.zeros(len(with_blanks_S), dtype=bool)
    skips_S[3::2] = with_blanks_S[3::2] != with_blanks_S[1:-2:2]  # the blank between two that differ may be left out
    best_S = np.full(len(with_blanks_S), -np.inf)
    came_TS = np.zeros((len(log_probs_TC), len(with_blanks_S)), dtype=np.int8)
    for step, log_probs_C in enumerate(log_probs_TC):
        ways = np.full((3, len(with_blanks_S)), -np.inf)
        if step:
            ways[0], ways[1, 1:] = best_S, best_S[:-1]
            ways[2, 2:] = np.where(skips_S[2:], best_S[:-2], -np.inf)
        else:
            ways[0, :2] = 0.0
        came_TS[step] = ways.argmax(axis=0)
        best_S = ways.max(axis=0) + log_probs_C[with_blanks_S]
    place = len(best_S) - 1 if len(best_S) == 1 or best_S[-1] >= best_S[-2] else len(best_S) - 2
    if labels and best_S[place] == -np.inf:
        raise ValueError(f"{len(log_probs_TC)} steps are too few for {len(labels)} characters")
    path_T = np.empty(len(log_probs_TC), dtype=np.intp)
    for step in range(len(log_probs_TC) - 1, -1, -1):
        path_T[step] = place
        place -= int(came_TS[step, place])
    numbers = 2 * np.arange(len(labels)) + 1
    return np.searchsorted(path_T, numbers, side="left"), np.searchsorted(path_T, numbers, side="right")


def transcript(
    log_probs_TC: NDArray, labels: Sequence[int], alphabet: Sequence[str], step_s: float, seconds: float
) -> Transcript:
    """What the labels say, how sure the network was of each, and when."""
    first_L, end_L = aligned(log_probs_TC, labels)
    chances = [
        float(np.exp(log_probs_TC[first:end, label].max()))
        for label, first, end in zip(labels, first_L, end_L, strict=True)
    ]
    words: list[Word] = []
    for begin, stop in _words([alphabet[label] for label in labels]):
        start_s, end_s = (min(float(step) * step_s, seconds) for step in (first_L[begin], end_L[stop - 1]))
        text = "".join(alphabet[label] for label in labels[begin:stop])
        words.append(Word(text, start_s, end_s, float(np.mean(chances[begin:stop]))))
    score = float(np.mean(chances)) if chances else 0.0
    return Transcript(" ".join(word.text for word in words), score, tuple(words), seconds)


def _words(characters: Sequence[str]) -> list[tuple[int, int]]:
    """[begin, stop) of what lies between spaces."""
    spaces = [-1, *(place for place, one in enumerate(characters) if one == SPACE), len(characters)]
    return [(begin + 1, stop) for begin, stop in pairwise(spaces) if stop > begin + 1]


def edit_distance(said: Sequence[int], true: Sequence[int]) -> int:
    """The fewest labels put in, taken out or changed (Levenshtein, 1966)."""
    row = np.arange(len(true) + 1)
    target = np.asarray(true, dtype=np.int64)
    for place, label in enumerate(said, start=1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (target != label))
        row = np.concatenate([[place], changed])
        row = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(
            len(row)
        )  # what is put in, one after another
    return int(row[-1])
