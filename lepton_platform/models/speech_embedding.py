"""Embed recordings with a pretrained speech encoder: the mean of what it hears, of length one.

Silence behind a recording is not part of the mean. The same recordings in the same order, with the same encoder on the
same build of torch and kind of CPU, give the same bytes, whatever the number of cores.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.side_by_side import cores, one_thread_a_batch
from lepton_platform.models.speech_input import RATE, as_pcm, padded, window
from lepton_platform.stage import Progress

if TYPE_CHECKING:
    from lepton_platform.models.whisper import Encoder

BATCH = 8
_INPUT = {"input": {"tail_s": 0.1, "step_s": 0.5, "least_s": 1.0}}
_STATE = RATE // 50  # samples
_MOST_STATES = 1_500


def embed(
    samples: Sequence[NDArray[np.float32]], weights_folder: Path, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """(N, width) of recordings (n,) at 16 kHz, each of Euclidean length one; of a longer one the first 30 s count."""
    encoder = _encoder(weights_folder)
    most = _MOST_STATES * _STATE - RATE
    recordings = [as_pcm(one[:most]) for one in samples]
    order = sorted(range(len(recordings)), key=lambda row: window(len(recordings[row]), _INPUT))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    vectors_ND = np.empty((len(recordings), encoder.norm.normalized_shape[0]), dtype=np.float32)
    done = 0
    with one_thread_a_batch(), ThreadPoolExecutor(cores()) as pool:
        for rows, vectors_BD in pool.map(lambda rows: (rows, _means(encoder, [recordings[r] for r in rows])), batches):
            vectors_ND[rows] = vectors_BD
            done += len(rows)
            if progress is not None:
                progress(done, len(recordings))
    return vectors_ND


def _encoder(folder: Path) -> "Encoder":
    import torch

    from lepton_platform.models.whisper import Whisper
    from lepton_platform.models.whisper_weights import load_whisper, whisper_sizes

    with torch.random.fork_rng(devices=[]):  # its first values are thrown away: nobody else's draws move
        network = Whisper(whisper_sizes(folder, 0.0))
    load_whisper(network, folder)
    return network.eval().encoder


def _means(encoder: "Encoder", recordings: Sequence[NDArray[np.int16]]) -> NDArray[np.float32]:
    """(B, width)."""
    import torch

    with torch.inference_mode():
        states_BSD = encoder(torch.from_numpy(padded(recordings, _INPUT))).numpy()
    heard = [states[: max(1, -(-len(one) // _STATE))] for states, one in zip(states_BSD, recordings, strict=True)]
    means_BD = np.stack([states.mean(axis=0) for states in heard])
    return means_BD / np.linalg.norm(means_BD, axis=1, keepdims=True)
