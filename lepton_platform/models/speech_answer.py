"""What a speech network says, whatever its kind: the one call for training, compression and the service. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lepton_platform.models import ctc, speech_decoding
from lepton_platform.models.graph import Run

WHISPER, DEEP_SPEECH = "whisper", "deep_speech"  # kinds of networks


def answer(run: Mapping[str, Run], audio_BN: NDArray, config: Mapping[str, Any], folder: Path) -> NDArray:
    """(B,) of ``Transcript``. ``audio_BN``: 16 bits, zeros behind; ``folder``: the model's, for its files."""
    transcripts = ctc.transcripts if config["kind"] == DEEP_SPEECH else speech_decoding.transcripts
    return transcripts(run, audio_BN, config, folder)
