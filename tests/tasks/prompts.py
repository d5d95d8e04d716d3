"""The packaged prompts, and what else Debian has of that kind: other languages, music for those who wait."""

import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from lepton_platform.data.archives import members
from lepton_platform.data.audio import RATE, decode, encode
from lepton_platform.data.audio_conversion import as_recording
from lepton_platform.data.packages import fetch_archive
from lepton_platform.data.transcripts import speakable
from lepton_platform.tasks.prompts import source
from lepton_platform.tasks.prompts.source import SourceParams

Samples = NDArray[np.float32]

_SOUNDS = "usr/share/asterisk/sounds"
_LANGUAGES = {  # the voice, how much softer than the English one, the archive
    "es": ("es_MX_f_Allison", 1.28, "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8"),
    "fr": ("fr_CA_f_June", 1.36, "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0"),
}
_MUSIC_SHA256 = "8f9d808a729d305c2d3343993f21ca5e6829e411682618dc8ea7aa8bc24a566c"


def need_debian(cache: Path) -> None:
    """Skips a test that cannot have the prompts."""
    kept = (cache / "packages/apt").glob("asterisk-core-sounds-en-g722-*/archive.deb")
    if shutil.which("apt-get") is None and not any(kept):
        pytest.skip("the prompts are Debian's: neither is apt-get here, nor were they fetched before")


def usable_prompts(cache: Path) -> list[dict]:
    """Rows of the source that hold speech of less than a minute."""
    need_debian(cache)
    rows = source.records(SourceParams(), cache)
    return [
        row for row in rows if row["audio"] and speakable(row["text"]) is None and row["file"] != "demo-instruct.g722"
    ]


def prompts_in(language: str, cache: Path) -> Iterator[Samples]:
    """Those of another language, tones and silence left out, as loud as the English ones are in the median."""
    voice, gain, sha256 = _LANGUAGES[language]
    archive = fetch_archive(f"asterisk-core-sounds-{language}-g722", "1.6.1-1", sha256, cache, "apt")
    for name, data in members(archive, f"{_SOUNDS}/{voice}/", ".g722"):
        if not any(word in name for word in ("silence", "tone", "beep", "monkeys", "demo-instruct", "confbridge-")):
            yield np.clip(gain * decode(as_recording(data, name)), -1, 1).astype(np.float32)


def music(cache: Path) -> Samples:
    """Eighteen minutes of it."""
    archive = fetch_archive("asterisk-moh-opsound-wav", "2.03-1.1", _MUSIC_SHA256, cache, "apt")
    found = []
    for _, data in members(archive, "usr/share/asterisk/moh/", ".wav"):
        samples, rate = soundfile.read(BytesIO(data), dtype="float32")
        found.append(soxr.resample(samples, rate, RATE))
    return np.concatenate(found)


def with_music(samples: Samples, played: Samples, at: int, snr_db: float) -> Samples:
    """Speech with music from its sample ``at`` on behind it; together not over full scale."""
    behind = played[at : at + len(samples)]
    gain = np.sqrt((samples**2).mean() / (behind**2).mean() / 10 ** (snr_db / 10))
    mixed = samples + gain * behind
    return (mixed / max(1, np.abs(mixed).max())).astype(np.float32)


def through_a_telephone(samples: Samples) -> Samples:
    """300 to 3,400 Hz."""
    spectrum, hz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / RATE)
    return np.fft.irfft(spectrum * ((hz >= 300) & (hz <= 3_400)), len(samples)).astype(np.float32)


def overdriven(samples: Samples) -> Samples:
    """Four times too loud for its recorder, and as loud as before when it is played."""
    return (np.clip(4 * samples, -1, 1) * np.abs(samples).max()).astype(np.float32)


def recorded(samples: Samples, change: Callable[[Samples], Samples] = lambda samples: samples) -> bytes:
    return encode(change(samples))
