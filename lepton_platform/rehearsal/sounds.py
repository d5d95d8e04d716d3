"""Speech as a telephone carries it, with music behind: real recordings, mixed at a known level."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.data.archives import members
from lepton_platform.data.audio import RATE, decode, encode
from lepton_platform.data.packages import fetch_archive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_MUSIC = ("asterisk-moh-opsound-wav", "2.03-1.1")  # eighteen minutes for those who wait (CC-BY-SA)
_MUSIC_SHA256 = "8f9d808a729d305c2d3343993f21ca5e6829e411682618dc8ea7aa8bc24a566c"
SNR_DB = 5.0
_BAND_HZ = (300.0, 3_400.0)


def music(cache: Path) -> "Samples":
    """(N,) at ``RATE``, one piece after the other."""
    import soundfile
    import soxr

    archive = fetch_archive(*_MUSIC, _MUSIC_SHA256, cache, "apt")
    found = []
    for _, data in members(archive, "usr/share/asterisk/moh/", ".wav"):
        samples, rate = soundfile.read(BytesIO(data), dtype="float32")
        found.append(soxr.resample(samples, rate, RATE))
    return np.concatenate(found)


def called_in(recording: bytes, played: "Samples", at: int) -> bytes:
    """The recording with ``played`` from its sample ``at`` on at ``SNR_DB`` behind it, through a telephone line."""
    samples = decode(recording)
    behind = np.roll(played, -at)[: len(samples)]
    power = max(float((behind**2).mean()), 1e-12) * 10 ** (SNR_DB / 10)
    mixed = samples[: len(behind)] + np.sqrt(float((samples**2).mean()) / power) * behind
    spectrum, hertz = np.fft.rfft(mixed), np.fft.rfftfreq(len(mixed), 1 / RATE)
    heard = np.fft.irfft(spectrum * ((hertz >= _BAND_HZ[0]) & (hertz <= _BAND_HZ[1])), len(mixed))
    return encode((heard / max(1.0, float(np.abs(heard).max()))).astype(np.float32))
