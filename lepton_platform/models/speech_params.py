"""The section ``train.network`` of a task that writes down speech: ``kind`` says which network, the rest is the kind's.

============= =====================================================================================================
whisper       a speech transformer that was trained elsewhere and is taught on (``models/whisper.py``)
deep_speech   a speech RNN that learns from nothing but the training rows (``models/deep_speech.py``)
============= =====================================================================================================
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lepton_platform.models.labelling import wrong_params
from lepton_platform.models.speech_answer import DEEP_SPEECH, WHISPER
from lepton_platform.stage import StageFailed

KIND = "kind"
P = TypeVar("P", bound=BaseModel)


class WhisperParams(BaseModel):
    """``kind: whisper``, or no kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["whisper"] = WHISPER
    weights: str | None = Field(
        "whisper-tiny-en",
        description="'whisper-tiny-en' (packaged), a folder, or a hub's name: weights and tokenizer. None: from scratch.",
    )
    sizes: dict[str, Any] = Field(
        default_factory=dict, description="From scratch: width, heads, encoder_layers, decoder_layers, hidden, states …"
    )
    language: str = Field("en", description="Of a network that knows several.")
    tail_s: float = Field(0.5, ge=0, le=5, description="Silence behind a recording, seconds.")
    step_s: float = Field(0.5, gt=0, le=30, description="A window is a multiple of it, seconds.")
    least_s: float = Field(1.0, gt=0, le=30, description="The shortest window; 30 is what Whisper was trained with.")
    max_tokens: int = Field(200, ge=4, description="The longest transcript.")
    dropout: float = Field(0.0, ge=0, lt=1)
    masks: dict[str, Any] = Field(
        default_factory=dict, description="SpecAugment: time_masks, time_share, band_masks, bands."
    )


class DeepSpeechParams(BaseModel):
    """``kind: deep_speech``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["deep_speech"]
    sizes: dict[str, Any] = Field(
        default_factory=dict, description="channels, kernels, strides, hidden, layers, dropout."
    )
    step_s: float = Field(0.5, gt=0, le=30, description="A window is a multiple of it, seconds.")
    least_s: float = Field(0.5, gt=0, le=30, description="The shortest window.")
    most_s: float = Field(30.0, gt=0, description="The longest recording.")
    masks: dict[str, Any] = Field(
        default_factory=dict, description="SpecAugment: time_masks, time_share, band_masks, bands (of 161)."
    )
    decoder: Literal["greedy", "beam", "language_model"] = Field(
        "greedy",
        description="beam: the likeliest characters of all paths together; language_model: the likeliest known words, by "
        "flashlight-text and a trigram model of the training texts.",
    )
    beam: int = Field(64, ge=1, description="beam, language_model: beginnings that are kept at every step.")
    lm_weight: float = Field(3.0, ge=0, description="language_model: of its logarithms to base ten.")
    word_score: float = Field(0.0, description="language_model: what a word more is worth, nats.")

    @model_validator(mode="after")
    def _belongs_to_the_decoder(self) -> "DeepSpeechParams":
        of_others = {"greedy": {"beam", "lm_weight", "word_score"}, "beam": {"lm_weight", "word_score"}}
        if unused := of_others.get(self.decoder, set()) & self.model_fields_set:
            raise ValueError(f"decoder: {self.decoder} does not use {', '.join(sorted(unused))}")
        return self


def kind_of(network: Mapping[str, Any]) -> str:
    """The section's kind; ``StageFailed`` where there is no such kind."""
    kind = network.get(KIND, WHISPER)
    if kind not in (WHISPER, DEEP_SPEECH):
        raise StageFailed(f"train.network.kind: {kind!r} is no kind of network. There are: {WHISPER}, {DEEP_SPEECH}.")
    return kind


def parsed(where: str, section: Mapping[str, Any], model: type[P]) -> P:
    """``StageFailed`` says what is wrong with the section and where it stands."""
    try:
        return model.model_validate(section)
    except ValidationError as error:
        raise wrong_params(where, error, model) from None


def parsed_masks(section: Mapping[str, Any]) -> dict[str, Any]:
    """SpecAugment's part, complete."""
    from lepton_platform.models.spec_augment import Masks

    return parsed("train.network.masks", section, Masks).model_dump()
