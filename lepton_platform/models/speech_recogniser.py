"""Learning to write down what is said: the learner that every task of this kind shares (see ``training/part.py``).

``train.network.kind`` chooses the network (``models/speech_params.py``); each kind has a learner of its own, to which this
one hands on. Importing this module is cheap: torch comes with the first network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models import speech_answer
from lepton_platform.models.batch import Batch
from lepton_platform.models.ctc_learner import CtcLearner, CtcSamples
from lepton_platform.models.graph import Graph, Run
from lepton_platform.models.speech_answer import DEEP_SPEECH, WHISPER
from lepton_platform.models.speech_params import KIND, kind_of
from lepton_platform.models.speech_samples import Config
from lepton_platform.models.whisper_learner import NEXT, WhisperLearner, WhisperSamples

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor, nn


@dataclass(frozen=True)
class SpeechRecogniser:
    """Learns the text of a recording.

    ``decode``: a file's bytes → samples (N,) at 16 kHz. ``written``: a text as a transformer learns it, as people write.
    ``normalise``: a text as characters are learnt: what nobody hears (capitals, punctuation) is not in it.
    """

    content: str
    target: str
    decode: Callable[[bytes], NDArray[np.float32]]
    written: Callable[[str], str]
    normalise: Callable[[str], str] = str.lower
    labels: tuple[str, ...] = ()  # an answer is a text, not one of a few

    @property
    def columns(self) -> tuple[str, ...]:
        return self.content, self.target

    def _of(self, kind: str) -> WhisperLearner | CtcLearner:
        if kind == DEEP_SPEECH:
            return CtcLearner(self.content, self.target, self.decode, self.normalise)
        return WhisperLearner(self.content, self.target, self.decode, self.written)

    def configure(self, network: Mapping[str, Any], rows: pa.Table, folder: Path, cache: Path) -> dict[str, Any]:
        return self._of(kind_of(network)).configure(network, rows, folder, cache)

    def build(self, config: Config) -> nn.Module:
        return self._of(config[KIND]).build(config)

    def start(self, network: Any, config: Config, cache: Path) -> None:
        self._of(config[KIND]).start(network, config, cache)

    def encode(
        self, config: Config, folder: Path, rows: pa.Table, *, training: bool = False
    ) -> WhisperSamples | CtcSamples:
        return self._of(config[KIND]).encode(config, folder, rows, training=training)

    def losses(self, outputs: Any, batch: Batch, label_smoothing: float) -> Tensor:
        return self._that_learns(batch).losses(outputs, batch, label_smoothing)

    def measures(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        return self._that_learns(batch).measures(outputs, batch)

    def _that_learns(self, batch: Batch) -> WhisperLearner | CtcLearner:
        """Tokens that follow, or characters."""
        return self._of(WHISPER if NEXT in batch.targets else DEEP_SPEECH)

    def graphs(self, network: Any, config: Config) -> dict[str, Graph]:
        return self._of(config[KIND]).graphs(network, config)

    def answer(self, run: Mapping[str, Run], inputs: Mapping[str, NDArray], config: Config, folder: Path) -> NDArray:
        """(B,) of ``Transcript``."""
        return speech_answer.answer(run, inputs["audio"], config, folder)

    def depths(self, network: Any) -> dict[str, int]:
        from lepton_platform.models.whisper import Whisper

        learner: Any = self._of(WHISPER if isinstance(network, Whisper) else DEEP_SPEECH)
        return learner.depths(network)
