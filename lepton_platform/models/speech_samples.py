"""Recordings and what is said in them, as every speech network is given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_platform.models.recordings import Recordings
from lepton_platform.models.speech_input import padded, window

if TYPE_CHECKING:
    from torch import Tensor

Config = Mapping[str, Any]


@dataclass(frozen=True)
class SpeechSamples:
    """``said``: where they are known, the numbers of the tokens or characters of each recording."""

    recordings: Recordings
    said: list[list[int]] | None
    config: Config

    @property
    def sizes(self) -> np.ndarray:
        return np.array([window(len(one), self.config) for one in self.recordings], dtype=np.int64)

    def audio(self, rows: Sequence[int]) -> Tensor:
        """(B, N) int16."""
        import torch

        return torch.from_numpy(padded([self.recordings[row] for row in rows], self.config))
