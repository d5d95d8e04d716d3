"""The learner of speech with a network that says a character, or nothing, at every step (see ``models/ctc.py``).

Importing this module is cheap: torch comes with the first network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.batch import Batch
from lepton_platform.models.ctc import BLANK, SPACE, edit_distance, greedy
from lepton_platform.models.graph import MODEL, Graph
from lepton_platform.models.ngram import arpa
from lepton_platform.models.recordings import Recordings
from lepton_platform.models.speech_input import RATE
from lepton_platform.models.speech_params import DeepSpeechParams, parsed, parsed_masks
from lepton_platform.models.speech_samples import Config, SpeechSamples
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from lepton_platform.models.deep_speech import DeepSpeech

LANGUAGE_MODEL = "words.arpa"
ALWAYS = f"{SPACE}'{ascii_lowercase}"  # characters that are known even if no training text has them
CHARACTERS, LENGTHS = "characters", "lengths"  # the targets
_MOST_TOO_SHORT = 0.05  # of the training rows

Outputs = tuple["Tensor", "Tensor"]


@dataclass(frozen=True)
class CtcSamples(SpeechSamples):
    """Recordings and the characters of what is said."""

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """→ audio int16 (B, N); targets ``characters`` (B, L), blanks behind, and their ``lengths`` (B,)."""
        import torch

        chosen = [int(row) for row in rows]
        inputs = {"audio": self.audio(chosen)}
        if self.said is None:
            return Batch(inputs, {})
        said = [self.said[row] for row in chosen]
        lengths = np.array([len(one) for one in said], dtype=np.int64)
        characters = np.full((len(said), max(int(lengths.max()), 1)), BLANK, dtype=np.int64)
        for row, one in enumerate(said):
            characters[row, : len(one)] = one
        return Batch(inputs, {CHARACTERS: torch.from_numpy(characters), LENGTHS: torch.from_numpy(lengths)})


@dataclass(frozen=True)
class CtcLearner:
    """``decode``: a file's bytes → samples (N,) at 16 kHz; ``normalise``: a text as its characters are learnt."""

    content: str
    target: str
    decode: Callable[[bytes], NDArray[np.float32]]
    normalise: Callable[[str], str]

    def configure(self, network: Mapping[str, Any], rows: pa.Table, folder: Path, cache: Path) -> dict[str, Any]:
        """See ``Learner.configure``; leaves a language model of the training texts, if the decoder asks for one."""
        from lepton_platform.models.deep_speech import DeepSpeechSizes

        del cache  # nothing is learnt elsewhere
        params = parsed("train.network", network, DeepSpeechParams)
        masks = parsed_masks(params.masks)
        texts = self._texts(rows)
        alphabet = ["", *sorted({*ALWAYS, *(character for text in texts for character in text)})]
        sizes = parsed("train.network.sizes", {**params.sizes, "classes": len(alphabet)}, DeepSpeechSizes)
        decoder: dict[str, Any] = {"kind": params.decoder}
        if params.decoder != "greedy":
            decoder["beam"] = params.beam
        if params.decoder == "language_model":
            _leave_language_model(texts, folder / LANGUAGE_MODEL)
            decoder |= {"language_model": LANGUAGE_MODEL, "lm_weight": params.lm_weight}
            decoder["word_score"] = params.word_score
        return {
            "kind": params.kind,
            "sizes": sizes.model_dump(mode="json"),
            "masks": masks,
            "alphabet": alphabet,
            "step_s": sizes.step_s,
            "decoder": decoder,
            "labels": [],
            "input": {
                "rate": RATE,
                "tail_s": 0.0,  # the network itself knows where a recording ends
                "step_s": params.step_s,
                "least_s": params.least_s,
                "most_s": params.most_s,
            },
            "files": [LANGUAGE_MODEL] if params.decoder == "language_model" else [],
            "inputs": ["audio"],
        }

    def build(self, config: Config) -> DeepSpeech:
        from lepton_platform.models.deep_speech import DeepSpeech, DeepSpeechSizes
        from lepton_platform.models.spec_augment import Masks

        return DeepSpeech(DeepSpeechSizes(**config["sizes"]), Masks(**config["masks"]))

    def start(self, network: DeepSpeech, config: Config, cache: Path) -> None:
        """It learns from nothing."""

    def encode(self, config: Config, folder: Path, rows: pa.Table, *, training: bool = False) -> CtcSamples:
        """A character that the alphabet has not is left out."""
        del folder
        recordings = Recordings(rows[self.content], self.decode, config["input"]["most_s"])
        said = None
        if self.target in rows.column_names:
            number = {character: n for n, character in enumerate(config["alphabet"]) if n != BLANK}
            said = [[number[one] for one in text if one in number] for text in self._texts(rows)]
            if training:
                _must_fit(recordings, said, config)
        return CtcSamples(recordings, said, config)

    def _texts(self, rows: pa.Table) -> list[str]:
        return [SPACE.join(self.normalise(text).split()) for text in rows[self.target].to_pylist()]

    def losses(self, outputs: Outputs, batch: Batch, label_smoothing: float) -> Tensor:
        """The negative logarithm of the probability of a row's characters, divided by how many they are.

        A row that is too short to say them all loses nothing and teaches nothing. ``label_smoothing``: the share of the
        steps' mean cross-entropy with all characters alike.
        """
        from torch.nn import functional as F

        log_probs_BTC, steps_B = outputs
        lengths_B = batch.targets[LENGTHS]
        each_B = F.ctc_loss(
            log_probs_BTC.transpose(0, 1).cpu(),  # a GPU's gradients depend on the order in which threads come
            batch.targets[CHARACTERS].cpu(),
            steps_B.cpu(),
            lengths_B.cpu(),
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        ).to(log_probs_BTC.device)
        each_B = each_B / lengths_B.clamp(min=1)
        if not label_smoothing:
            return each_B
        heard_BT = log_probs_BTC.new_ones(log_probs_BTC.shape[:2]).cumsum(1) <= steps_B[:, None]
        evenly_B = -(log_probs_BTC.mean(2) * heard_BT).sum(1) / steps_B.clamp(min=1)
        return (1 - label_smoothing) * each_B + label_smoothing * evenly_B

    def measures(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """``accuracy``: one less the character errors of the likeliest path, as a share of the true characters."""
        import torch

        log_probs_BTC, steps_B = (one.detach().cpu().numpy() for one in outputs)
        characters_BL, lengths_B = (batch.targets[name].tolist() for name in (CHARACTERS, LENGTHS))
        accuracies = []
        for log_probs_TC, steps, characters, length in zip(
            log_probs_BTC, steps_B, characters_BL, lengths_B, strict=True
        ):
            errors = edit_distance(greedy(log_probs_TC[:steps]), characters[:length])
            accuracies.append(1.0 - errors / max(length, 1))
        losses_B = self.losses(outputs, batch, 0.0)
        return {"loss": losses_B, "accuracy": torch.tensor(accuracies, device=losses_B.device)}

    def graphs(self, network: DeepSpeech, config: Config) -> dict[str, Graph]:
        """Of few steps: the exporter goes through an LSTM step by step."""
        import torch

        step = round(config["step_s"] * RATE)
        few, more = (torch.zeros(rows, steps * step, dtype=torch.int16) for rows, steps in ((2, 6), (3, 8)))
        return {MODEL: Graph(network, {"audio": few}, {"audio": more}, ("log_probs", "steps"))}

    def depths(self, network: DeepSpeech) -> dict[str, int]:
        """0 the last layer, which says characters; the first convolution is the deepest."""
        from lepton_platform.models.depths import depths

        layers = [(f"layers.{n}", f"norms.{n}") for n in reversed(range(len(network.layers)))]
        return depths(
            network, ["head", *layers, *(f"convolutions.{n}" for n in reversed(range(len(network.convolutions))))]
        )


def _leave_language_model(texts: Sequence[str], path: Path) -> None:
    if find_spec("flashlight") is None:
        raise StageFailed("train.network.decoder: language_model needs the package flashlight-text; install it.")
    try:
        path.write_text(arpa([text.split() for text in texts]), encoding="utf-8")
    except ValueError as error:
        raise StageFailed(f"No language model can be made of the training texts: {error}.") from None


def _must_fit(recordings: Recordings, said: Sequence[Sequence[int]], config: Config) -> None:
    """A character takes a step, and one that is repeated a blank before it."""
    from lepton_platform.models.deep_speech import DeepSpeechSizes, steps_of

    sizes = DeepSpeechSizes(**config["sizes"])
    needed = [len(one) + sum(a == b for a, b in pairwise(one)) for one in said]
    short = [row for row, one in enumerate(recordings) if steps_of(len(one), sizes) < needed[row]]
    if len(short) > _MOST_TOO_SHORT * len(said):
        row = short[0]
        raise StageFailed(
            f"{len(short)} of {len(said)} training recordings are too short for their texts: row {row} has "
            f"{steps_of(len(recordings[row]), sizes)} steps for {needed[row]} characters. Make "
            "train.network.sizes.strides smaller, or set such rows aside in clean."
        )
