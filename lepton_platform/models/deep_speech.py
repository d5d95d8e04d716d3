"""The Lepton speech RNN: spectra, convolutions and LSTMs in both directions, which say a character or nothing at every step.

Deep Speech 2's network (Amodei et al., 2015, arXiv:1512.02595), for connectionist temporal classification (Graves et al.,
2006). Norms are of layers and not of batches, so that a recording's answer and its loss are its own, whatever it shares a
batch with.

A recording ends with its last sample that is not zero: the network finds that out by itself, and what lies behind is
hidden from every layer. So zeros behind a recording change nothing that is said, but for the order in which floats are added
up. (SpecAugment draws its stretches of the whole window.)

Letters in names are shapes: B rows, N samples, F frequencies, T frames, D width, C characters with the blank, K channels.
"""

import math

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_platform.models.log_mel import RATE, Spectrum
from lepton_platform.models.rnn import RnnLayer, reversed_rows
from lepton_platform.models.spec_augment import Masks, SpecAugment

WINDOW, HOP = 320, 160  # samples: 20 ms every 10 ms
FREQUENCIES = WINDOW // 2 + 1
_LOUDEST_TO_LEAST = 1e-8  # what is 80 dB below the loudest counts as silence
_CLIP = 20.0


class DeepSpeechSizes(BaseModel):
    """What rebuilds the network; the defaults are the paper's, but for its width of 1280 and more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: int = Field(29, ge=2, description="Characters, the blank among them.")
    channels: tuple[int, ...] = Field((32, 32), min_length=1, description="Of each convolution.")
    kernels: tuple[tuple[int, int], ...] = Field(((41, 11), (21, 11)), description="Frequencies and frames; odd.")
    strides: tuple[tuple[int, int], ...] = Field(((2, 2), (2, 1)), description="In frequencies and in frames.")
    hidden: int = Field(512, ge=1, description="Of the LSTMs, in each direction.")
    layers: int = Field(5, ge=1, description="Of LSTMs.")
    dropout: float = Field(0.1, ge=0, lt=1, description="After every layer of LSTMs.")

    @model_validator(mode="after")
    def _fit_together(self) -> "DeepSpeechSizes":
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise ValueError("channels, kernels and strides name one convolution each: they are equally many")
        if any(side % 2 == 0 or side < 1 for kernel in self.kernels for side in kernel):
            raise ValueError("kernels are of odd sizes")
        if any(step < 1 for stride in self.strides for step in stride):
            raise ValueError("strides are at least 1")
        return self

    @property
    def frames_per_step(self) -> int:
        return math.prod(frames for _, frames in self.strides)

    @property
    def step_s(self) -> float:
        """From one answer to the next, seconds."""
        return self.frames_per_step * HOP / RATE


def steps_of(samples: int, sizes: DeepSpeechSizes) -> int:
    """How many answers there are to a recording of so many samples."""
    frames = -(-samples // HOP)
    for _, stride in sizes.strides:
        frames = -(-frames // stride)
    return frames


class LogSpectrum(nn.Module):
    """Samples (B, N) → logarithms of power (B, F, T), of mean zero and deviation one in each recording, and its frames (B,).

    Behind a recording's frames there are zeros. T = N // HOP + 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = Spectrum(WINDOW, HOP)

    def forward(self, audio_BN: Tensor) -> tuple[Tensor, Tensor]:
        x_BN = audio_BN.float()
        place_N = torch.arange(1, x_BN.shape[1] + 1, device=x_BN.device)
        samples_B = torch.where(x_BN != 0, place_N, 0).amax(1)
        frames_B = (samples_B + HOP - 1) // HOP
        power_BFT = self.spectrum(F.pad(x_BN, (0, HOP)))  # so that no frame reaches the reflection at the window's end
        heard_B1T = _before(frames_B, power_BFT.shape[2])[:, None]
        power_BFT = power_BFT * heard_B1T
        least_B11 = (power_BFT.amax(dim=(1, 2), keepdim=True) * _LOUDEST_TO_LEAST).clamp(min=1e-20)
        x_BFT = torch.maximum(power_BFT, least_B11).log()
        many_B11 = (frames_B * FREQUENCIES).clamp(min=1)[:, None, None]
        mean_B11 = (x_BFT * heard_B1T).sum(dim=(1, 2), keepdim=True) / many_B11
        x_BFT = (x_BFT - mean_B11) * heard_B1T
        deviation_B11 = (x_BFT.square().sum(dim=(1, 2), keepdim=True) / many_B11).sqrt()
        return x_BFT / (deviation_B11 + 1e-3), frames_B


def _before(frames_B: Tensor, length: int) -> Tensor:
    """(B, length) of 1 before a row's end and 0 behind."""
    return (torch.arange(length, device=frames_B.device) < frames_B[:, None]).float()


class Convolution(nn.Module):
    """(B, K, F, T) → (B, K', F / stride, T / stride): a norm over what is heard at a time, a ReLU clipped at 20."""

    def __init__(
        self, inner: int, frequencies: int, channels: int, kernel: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        super().__init__()
        self.stride = stride[1]
        self.frequencies = -(-frequencies // stride[0])
        self.near = nn.Conv2d(inner, channels, kernel, stride, padding=(kernel[0] // 2, kernel[1] // 2))
        self.norm = nn.LayerNorm([channels, self.frequencies])

    def forward(self, x_BKFT: Tensor, frames_B: Tensor) -> tuple[Tensor, Tensor]:
        frames_B = (frames_B + self.stride - 1) // self.stride
        x_BTKF = self.norm(self.near(x_BKFT).permute(0, 3, 1, 2))
        x_BKFT = x_BTKF.permute(0, 2, 3, 1).clamp(0.0, _CLIP)
        return x_BKFT * _before(frames_B, x_BKFT.shape[3])[:, None, None], frames_B


class DeepSpeech(nn.Module):
    """``audio`` (B, N) int16 → logarithms of probabilities (B, T, C) float32, the blank first, and the rows' steps (B,).

    What is said behind a row's steps means nothing.
    """

    def __init__(self, sizes: DeepSpeechSizes, masks: Masks | None = None) -> None:
        super().__init__()
        self.spectra = LogSpectrum()
        self.masks = SpecAugment(masks or Masks.model_validate({}))
        built: list[Convolution] = []
        inner, frequencies = 1, FREQUENCIES
        for channels, kernel, stride in zip(sizes.channels, sizes.kernels, sizes.strides, strict=True):
            built.append(Convolution(inner, frequencies, channels, kernel, stride))
            inner, frequencies = channels, built[-1].frequencies
        self.convolutions = nn.ModuleList(built)
        widths = [inner * frequencies] + [sizes.hidden] * (sizes.layers - 1)
        self.layers = nn.ModuleList(RnnLayer(width, sizes.hidden, bidirectional=True) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.hidden) for _ in widths)
        self.dropout = nn.Dropout(sizes.dropout)
        self.head = nn.Linear(sizes.hidden, sizes.classes)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        x_BFT, steps_B = self.spectra(audio)
        x_BKFT = self.masks(x_BFT)[:, None]
        for convolution in self.convolutions:
            x_BKFT, steps_B = convolution(x_BKFT, steps_B)
        x_BTD = x_BKFT.flatten(1, 2).transpose(1, 2)
        turn_BT = reversed_rows(steps_B, x_BTD.shape[1])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            forwards_BTD, backwards_BTD = layer(x_BTD, turn_BT).chunk(2, dim=2)
            # The exporter takes the example's length for an LSTM's; the view says again that it is free.
            both_BTD = (forwards_BTD + backwards_BTD).view(*turn_BT.shape, -1)
            x_BTD = self.dropout(norm(both_BTD))
        return self.head(x_BTD).float().log_softmax(2), steps_B
