"""From what a speech transformer hears to words and their times: greedy, several recordings at once. numpy only.

The same code answers in training's evaluation, for the compressed graphs and in the service. Words' times are where the
alignment heads of the decoder look, brought into order by dynamic time warping, as in OpenAI's ``timing.py`` (after
Radford et al., 2022).

Letters in names are shapes: B rows, N samples, T tokens, S encoder states, A alignment heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.graph import Run
from lepton_platform.models.speech_input import seconds_of
from lepton_platform.models.time_warping import alignment
from lepton_platform.models.transcription import Transcript, Word

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ENCODER, DECODER = "encoder", "decoder"  # the graphs' names
STATES_PER_S = 50
_TOKENS_PER_S = 12  # nobody speaks faster: what goes on longer repeats itself
_TOKENS_BESIDE = 12
_FILTER = 7  # states; the width of the median that smooths attention
_NEVER = -np.inf


@dataclass(frozen=True)
class _Said:
    """One recording's tokens, how likely each was, and what was looked at before each (T + 1, A, S)."""

    tokens: list[int]
    chances: list[float]
    attention: list[NDArray]


def transcripts(run: Mapping[str, Run], audio_BN: NDArray, config: Mapping[str, Any], folder: Path) -> NDArray:
    """(B,) of ``Transcript``. ``folder`` holds the tokenizer that the config names."""
    tokenizer = _tokenizer(folder / config["tokenizer"])
    seconds = seconds_of(audio_BN)
    found = np.empty(len(audio_BN), dtype=object)
    for row, said in enumerate(greedy(run, audio_BN, seconds, config)):
        found[row] = _transcript(said, tokenizer, seconds[row])
    return found


def greedy(
    run: Mapping[str, Run], audio_BN: NDArray, seconds: Sequence[float], config: Mapping[str, Any]
) -> list[_Said]:
    """The likeliest token after each; a recording ends with its end token, or with more than can be said in its time."""
    special = config["tokens"]
    [memory] = run[ENCODER]({"audio": audio_BN})
    layers, two, rows, heads, _, each = memory.shape
    present = np.zeros((layers, two, rows, heads, 0, each), dtype=np.float32)
    most = [min(config["max_tokens"], int(_TOKENS_BESIDE + _TOKENS_PER_S * s)) for s in seconds]
    found = [_Said([], [], []) for _ in range(rows)]
    *before, token = [np.full(rows, one, dtype=np.int64) for one in special["start"]]
    for one in before:
        _, present, _ = run[DECODER]({"token": one, "past": present, "memory": memory})
    open_rows = set(range(rows))
    for place in range(max(most)):
        logits, present, attention = run[DECODER]({"token": token, "past": present, "memory": memory})
        logits = np.array(logits, dtype=np.float32)
        logits[:, special["suppress"]] = _NEVER
        if place == 0:
            logits[:, special["suppress_first"]] = _NEVER
        token = logits.argmax(axis=1)
        for row in sorted(open_rows):
            found[row].attention.append(attention[row])
            if token[row] == special["end"] or place >= most[row]:
                open_rows.discard(row)
                continue
            found[row].tokens.append(int(token[row]))
            found[row].chances.append(_chance(logits[row], int(token[row])))
        if not open_rows:
            break
    return found


def _chance(logits_V: NDArray, token: int) -> float:
    """The softmax of one."""
    return float(1.0 / np.exp(logits_V - logits_V[token]).sum())


def _transcript(said: _Said, tokenizer: "Tokenizer", seconds: float) -> Transcript:
    text = " ".join(tokenizer.decode(said.tokens).split())
    score = float(np.mean(said.chances)) if said.chances else 0.0
    return Transcript(text, score, tuple(_words(said, tokenizer, seconds)), seconds)


def _words(said: _Said, tokenizer: "Tokenizer", seconds: float) -> list[Word]:
    """Tokens that begin with a space begin a word."""
    if not said.tokens:
        return []
    ends = token_ends(np.stack(said.attention[: len(said.tokens)]), seconds)
    starts = np.concatenate([[0.0], ends[:-1]])
    pieces = [tokenizer.decode([token]) for token in said.tokens]
    first = [n for n, piece in enumerate(pieces) if n == 0 or piece.startswith(" ")]
    found = []
    for begin, stop in zip(first, [*first[1:], len(pieces)], strict=True):
        text = tokenizer.decode(said.tokens[begin:stop]).strip()
        if text:
            score = float(np.mean(said.chances[begin:stop]))
            found.append(Word(text, float(starts[begin]), float(ends[stop - 1]), score))
    return found


def token_ends(attention_TAS: NDArray, seconds: float) -> NDArray[np.float64]:
    """(T,) seconds at which each token ends, rising."""
    heard = max(int(np.ceil(seconds * STATES_PER_S)), 1)
    weights = np.asarray(attention_TAS, dtype=np.float64)[:, :, :heard]
    weights = (weights - weights.mean(axis=0)) / (weights.std(axis=0) + 1e-9)
    matrix_TS = _median(weights).mean(axis=1)
    tokens, states = alignment(-matrix_TS)
    last = np.zeros(len(matrix_TS))
    np.maximum.at(last, tokens, states + 1)
    return np.minimum(last / STATES_PER_S, seconds)


def _median(weights_TAS: NDArray) -> NDArray:
    """Smoothed over states."""
    half = _FILTER // 2
    wide = np.pad(weights_TAS, ((0, 0), (0, 0), (half, half)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(wide, _FILTER, axis=2), axis=-1)


def _tokenizer(path: Path) -> "Tokenizer":
    return _loaded(str(path), path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _loaded(path: str, changed_ns: int) -> "Tokenizer":
    from tokenizers import Tokenizer

    del changed_ns  # a part of the key: another file of that name is another tokenizer
    return Tokenizer.from_file(path)
