"""What a speech network hears: spectra of short frames, computed inside the network and exported with it.

So there is one implementation: training, the compressed model and the service are all fed samples. The Fourier transform
of a frame is a convolution with cosines and sines, which every runtime has and which gives the same answers on all.

Letters in names are shapes: B rows, N samples, T frames, F frequencies, M mel bands.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATE = 16_000  # Hz
FULL_SCALE = 32_768.0  # of 16-bit samples
_BREAK_HZ, _BREAK_MEL, _STEP = 1_000.0, 15.0, math.log(6.4) / 27.0


def mel_filters(bands: int, window: int) -> np.ndarray:
    """(M, window // 2 + 1): triangles of equal area over the mel scale of Slaney's Auditory Toolbox (1998), 0 to RATE / 2.

    The scale is linear up to 1 kHz and logarithmic above; the filters are librosa's, which Whisper was trained with.
    """
    top = _BREAK_MEL + math.log(RATE / 2 / _BREAK_HZ) / _STEP
    mels = np.linspace(0.0, top, bands + 2)
    edges = np.where(mels < _BREAK_MEL, mels * _BREAK_HZ / _BREAK_MEL, _BREAK_HZ * np.exp(_STEP * (mels - _BREAK_MEL)))
    bins = np.linspace(0.0, RATE / 2, window // 2 + 1)
    slopes = edges[:, None] - bins[None, :]
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def in_full_precision(compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Sixteen bits would not tell quiet frequencies beside loud ones: what is around may be in mixed precision."""
    if not torch.is_autocast_enabled(x.device.type):
        return compute(x)
    with torch.autocast(x.device.type, enabled=False):
        return compute(x)


class Spectrum(nn.Module):
    """16-bit samples (B, N) → power of every frequency (B, F, T); a frame every ``hop`` samples, F = window // 2 + 1.

    Hann's window, frames centred as in librosa: the recording is reflected at its ends. T = N // hop.
    """

    waves: Tensor

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        n = np.arange(window)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
        angle = 2 * np.pi * np.outer(np.arange(window // 2 + 1), n) / window
        waves = np.concatenate([np.cos(angle) * hann, np.sin(angle) * hann]).astype(np.float32)
        self.register_buffer("waves", torch.from_numpy(waves)[:, None], persistent=False)  # a formula is not stored

    def forward(self, audio_BN: Tensor) -> Tensor:
        return in_full_precision(self._power, audio_BN)

    def _power(self, audio_BN: Tensor) -> Tensor:
        x_B1N = (audio_BN.float() / FULL_SCALE)[:, None]
        half = self.window // 2
        x_B1N = F.pad(x_B1N, (half, half), mode="reflect")
        real_BFT, imaginary_BFT = F.conv1d(x_B1N, self.waves, stride=self.hop).chunk(2, dim=1)
        return (real_BFT.square() + imaginary_BFT.square())[:, :, :-1]


class LogMel(nn.Module):
    """16-bit samples (B, N) → (B, M, T): Whisper's input (Radford et al., 2022, arXiv:2212.04356).

    Frames of 25 ms every 10 ms; logarithms to base ten, no lower than 8 below the recording's loudest, brought to about
    ±1. Whisper's frames are longer than the 20 ms of other systems, and what it has learnt depends on them.
    """

    filters: Tensor

    def __init__(self, bands: int = 80, window: int = 400, hop: int = 160) -> None:
        super().__init__()
        self.spectrum = Spectrum(window, hop)
        self.register_buffer("filters", torch.from_numpy(mel_filters(bands, window)), persistent=False)

    def forward(self, audio_BN: Tensor) -> Tensor:
        return in_full_precision(self._logarithms, audio_BN)

    def _logarithms(self, audio_BN: Tensor) -> Tensor:
        log_BMT = torch.matmul(self.filters, self.spectrum(audio_BN)).clamp(min=1e-10).log10()
        loudest_B11 = log_BMT.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(log_BMT, loudest_B11 - 8.0) + 4.0) / 4.0
