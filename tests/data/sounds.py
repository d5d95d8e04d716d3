"""Recordings made for tests, as samples and as the files that people have."""

from io import BytesIO

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000


def speechlike(seconds: float = 1.0, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    """(N,) float32: a voice's harmonics in syllables with pauses between them, a little noise over all."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 40 * rng.random()
    voice = sum(np.sin(2 * np.pi * pitch * n * t + rng.uniform(0, 6)) / n for n in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t) * 2, 0, 1)
    return (0.15 * voice * syllables + rng.normal(0, 1e-4, len(t))).astype(np.float32)


def saved(samples: np.ndarray, kind: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    """A file of (N,) or (N, channels) samples."""
    file = BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def converted(samples: np.ndarray, container: str, codec: str, rate: int = RATE) -> bytes:
    """A file in a codec of FFmpeg's, of (N,) samples at ``rate``."""
    import av
    from av.audio.stream import AudioStream

    file = BytesIO()
    levels = (samples * 32_767).astype(np.int16)[None]
    with av.open(file, "w", format=container) as sink:
        stream = sink.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(levels, format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            sink.mux(stream.encode(part))
    return file.getvalue()


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation at the best shift of up to 50 ms (codecs delay) over the length that both have."""
    n, most = min(len(a), len(b)), RATE // 20
    a, b = a[:n].astype(np.float64), b[:n].astype(np.float64)
    size = 2 * n
    across = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    near = np.concatenate([across[: most + 1], across[-most:]])
    return float(near.max() / np.sqrt((a**2).sum() * (b**2).sum()))
