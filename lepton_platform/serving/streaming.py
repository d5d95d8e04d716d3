"""Speech that is still coming: cut into stretches where somebody pauses, each heard once for good.

Pure: bytes in, parts for the model out, its answers in, text out; who asks when is ``stream_route.py``'s. Where the sound
is cut depends on the sound alone, not on how it came, so that the final answer does not either.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.data import audio
from lepton_platform.models.speech_input import RATE, as_pcm
from lepton_platform.models.transcription import Transcript
from lepton_platform.serving.audio import SpeechEncoder, cuts, is_silent
from lepton_platform.serving.jsonbody import shown
from lepton_platform.serving.protocols import Encoded, Json, Parts
from lepton_platform.serving.rejected import Rejected, malformed, too_large

if TYPE_CHECKING:
    from soxr import ResampleStream

LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000  # Hz
PAUSE_S = 0.6  # of silence ends a stretch
PASS_S = 1.0  # of new sound before the model is asked again
_LOOK = RATE // 2  # samples between two looks for a pause
_MOST = int(audio.MAX_SECONDS * RATE)
_STEPS = 32_768  # of 16 bits, to full scale
Place = tuple[int, int]  # [first, end) in samples


class Stretches:
    """Sound at 16 kHz as it comes, and its stretches: ``finished`` ones, which stay, and the ``open`` one behind them.

    Together they are all that came. None is longer than ``most`` samples.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.finished: list[Place] = []
        self._levels = np.zeros(0, np.int16)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def open(self) -> Place:
        return (self.finished[-1][1] if self.finished else 0), self._count

    def sound(self, place: Place) -> NDArray[np.float32]:
        """(N,) within ±1."""
        return self._levels[place[0] : place[1]].astype(np.float32) / np.float32(_STEPS)

    def add(self, levels: NDArray[np.int16]) -> None:
        """Looks for pauses at the same places however the sound is cut into calls."""
        while len(levels):
            taken, levels = np.split(levels, [_LOOK - self._count % _LOOK])
            self._append(taken)
            if self._count % _LOOK == 0:
                while self._cut():
                    pass

    def finish(self) -> None:
        """Nothing more comes: the open stretch is one like the others."""
        if self.open[0] < self.open[1]:
            self.finished.append(self.open)

    def _append(self, levels: NDArray[np.int16]) -> None:
        count = self._count + len(levels)
        if count > len(self._levels):
            larger = np.zeros(max(count, 2 * len(self._levels)), np.int16)
            larger[: self._count] = self._levels[: self._count]
            self._levels = larger
        self._levels[self._count : count] = levels
        self._count = count

    def _cut(self) -> bool:
        """Finish a stretch that ends in a pause, or that would become too long before the next look."""
        first, end = self.open
        if first == end:
            return False
        sound = self.sound((first, end))
        length = _paused(sound)
        if length is None and len(sound) + _LOOK > self.most:
            length = cuts(sound, self.most - _LOOK)[0][1]
        if length is None or length == len(sound):
            return False
        self.finished.append((first, first + length))
        return True


def _paused(sound: NDArray[np.float32]) -> int | None:
    """Where the first pause after something was said may be cut: as far into it as ``PAUSE_S`` is long by half."""
    pauses = (begin for begin, _ in audio.silences(sound, PAUSE_S) if begin > 0)
    begin = next(pauses, None)
    return None if begin is None else begin + round(PAUSE_S * RATE / 2)


class SpeechStream:
    """A recording that is still being made, as 16-bit samples, little-endian, one channel. See ``protocols.Stream``."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        self.encoder = encoder
        self.stretches = Stretches(encoder.most)
        self.rate = RATE
        self._resampler: ResampleStream | None = None
        self._taken = 0  # samples as they came
        self._asked_at = 0  # samples that had come when the model was asked last
        self._ended = False
        self._asked: dict[Place, Encoded] = {}
        self._heard: dict[Place, tuple[Encoded, Transcript]] = {}
        self._silent: set[Place] = set()  # finished, and nobody to be heard

    def told(self, options: Json) -> None:
        """``{"rate": 8000}``: samples a second."""
        for name in options:
            if name != "rate":
                raise Rejected(415, f'No stream takes {shown(name)}; "rate" comes first, "end" last.', name)
        rate = options.get("rate")
        if type(rate) is not int or not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise malformed(
                f'"rate" is a whole number from {LOWEST_RATE} to {HIGHEST_RATE}, not {shown(rate)}.', "rate"
            )
        self.rate = rate
        if rate != RATE:
            from soxr import ResampleStream

            self._resampler = ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")

    def take(self, data: bytes) -> None:
        if len(data) % 2:
            raise malformed(f"A message of {len(data):,} bytes holds half a sample: samples are of 16 bits.")
        self._taken += len(data) // 2
        if self._taken > audio.MAX_SECONDS * self.rate:
            raise too_large(f"The recording is longer than {audio.MAX_SECONDS:g} s.")
        self._add(np.frombuffer(data, "<i2"))

    def end(self) -> None:
        if self._taken < audio.MIN_SECONDS * self.rate:
            raise malformed(
                f"The recording ended after {self._taken / self.rate:.3f} s; at least {audio.MIN_SECONDS:g} s are needed."
            )
        self._add(np.zeros(0, np.int16), last=True)
        self.stretches.finish()
        self._ended = True

    def _add(self, levels: NDArray[np.int16], last: bool = False) -> None:
        if self._resampler is not None:
            sound = levels.astype(np.float32) / np.float32(_STEPS)
            levels = as_pcm(
                self._resampler.resample_chunk(sound, last)
            )  # may have become louder than full scale: clips
        self.stretches.add(levels[: _MOST - len(self.stretches)])

    def due(self) -> list[Encoded]:
        if not self._ended and len(self.stretches) - self._asked_at < PASS_S * RATE:
            return []
        self._asked_at = len(self.stretches)
        finished = self.stretches.finished
        known = self._heard.keys() | self._silent
        new = [place for place in finished if place not in known]
        self._silent |= {place for place in new if self._is_silent(place)}
        asked = [place for place in new if place not in self._silent]
        if self._ended and len(self._silent) == len(finished):
            asked = finished[:1]  # silent throughout: the model says so
        elif not self._ended and not self._is_silent(self.stretches.open):
            asked.append(self.stretches.open)
        self._asked = {place: self.encoder.piece(self.stretches.sound(place), place[0] / RATE) for place in asked}
        return list(self._asked.values())

    def _is_silent(self, place: Place) -> bool:
        return place[0] == place[1] or is_silent(self.stretches.sound(place))

    def heard(self, outputs: Sequence[Transcript]) -> str:
        self._heard |= {place: (part, said) for (place, part), said in zip(self._asked.items(), outputs, strict=True)}
        kept = {*self.stretches.finished, max(self._asked)}  # a stretch that was open and has grown since is forgotten
        self._heard = {place: self._heard[place] for place in sorted(self._heard) if place in kept}
        return " ".join(said.text for _, said in self._heard.values() if said.text)

    def whole(self) -> tuple[bytes, Parts, list[Any]]:
        """The recording as a FLAC at 16 kHz, as it came: silence at its ends is part of it."""
        seconds = len(self.stretches) / RATE
        heard = [self._heard[place] for place in self.stretches.finished if place in self._heard]
        parts = [replace(part, payload=replace(part.payload, duration_s=seconds)) for part, _ in heard]
        return audio.encode(self.stretches.sound((0, len(self.stretches)))), parts, [said for _, said in heard]
