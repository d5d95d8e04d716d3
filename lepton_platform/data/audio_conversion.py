"""Sound in files that ``audio`` does not read, brought to one that it does: by FFmpeg, through PyAV, in training only.

FFmpeg would guess what a file is, playlists that name other files among it. It is told, and by a short list.
"""

import io
from itertools import chain
from typing import TYPE_CHECKING, Any

from lepton_platform.data.audio import RATE, encode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CONTAINERS = (  # where in the file, what stands there, FFmpeg's name
    (4, b"ftyp", "mov"),  # .m4a, .mp4, .3gp
    (0, b"\x1a\x45\xdf\xa3", "matroska"),  # .webm, .mka
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"#!AMR", "amr"),
    (0, b"\x30\x26\xb2\x75", "asf"),  # .wma
    (0, b"FORM", "aiff"),
    (0, b".snd", "au"),
    (0, b"caff", "caf"),
)
_BY_NAME = {".g722": "g722"}  # nothing in the file tells it
_TOLD_BY_CONTENT = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3")
_MAX_SECONDS = 600.0  # far more than is learnt from; a small file can hold days
_STEPS = 32_768  # of 16 bits, to full scale


def as_recording(data: bytes, name: str = "") -> bytes:
    """The file as it is, or, where it is of a kind that only FFmpeg reads, its sound as ``audio.encode`` writes it.

    Of a file that is cut off what is there is used. ``ValueError`` says why nothing is. What neither reads stays as it
    is: ``audio.decode`` says so.
    """
    container = _container(data, name)
    return data if container is None else encode(_decoded(data, container))


def _container(data: bytes, name: str) -> str | None:
    for suffix, container in _BY_NAME.items():
        if name.lower().endswith(suffix) and not data.startswith(_TOLD_BY_CONTENT):
            return container
    return next((container for at, magic, container in _CONTAINERS if data[at:].startswith(magic)), None)


def _decoded(data: bytes, container: str) -> "NDArray[np.float32]":
    """(N,) the file's first sound at ``RATE``, one channel."""
    import av
    import numpy as np

    levels: list[Any] = []
    samples = 0
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    said = "it has none"
    try:
        with av.open(io.BytesIO(data), "r", format=container) as file:
            for frame in chain(file.decode(audio=0), [None]) if file.streams.audio else ():
                for part in resampler.resample(frame):
                    levels.append(part.to_ndarray()[0])
                    samples += len(levels[-1])
                if samples > _MAX_SECONDS * RATE:
                    raise _TooLong(f"the recording is longer than the {_MAX_SECONDS:g} s that are converted")
    except _TooLong:
        raise
    except Exception as error:  # FFmpeg's own, and what the binding raises where a header makes no sense
        said = " ".join(str(getattr(error, "strerror", None) or error).split())[:120] or type(error).__name__
    if not levels:
        raise ValueError(f"no sound can be read from the {container} file: {said}")
    return (np.concatenate(levels) / _STEPS).astype(np.float32)


class _TooLong(ValueError):
    """Ours, already a sentence."""
