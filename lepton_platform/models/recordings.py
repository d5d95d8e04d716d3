"""The recordings of a table's rows, ready for a network: decoded once where they fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lepton_platform.models.speech_input import RATE, as_pcm
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_KEPT_BYTES = 2 << 30  # 18 hours


class Recordings:
    """``recordings[row]`` is (N,) int16 at 16 kHz. ``most_s``: what the network can take, seconds."""

    def __init__(self, column: pa.ChunkedArray, decode: Callable[[bytes], NDArray[np.float32]], most_s: float) -> None:
        self._files, self._decode, self._most_s = column, decode, most_s
        self._kept: dict[int, NDArray[np.int16]] = {}
        self._left = _KEPT_BYTES

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> NDArray[np.int16]:
        found = self._kept.get(row)
        if found is None:
            try:
                found = as_pcm(self._decode(self._files[row].as_py()))
            except ValueError as error:
                raise StageFailed(f"The recording of row {row} cannot be used: {error}.") from None
            if len(found) > self._most_s * RATE:
                raise StageFailed(
                    f"The recording of row {row} lasts {len(found) / RATE:.1f} s; the network takes {self._most_s:g} s. "
                    "Set clean.max_size (milliseconds) so that longer ones are set aside."
                )
            if found.nbytes <= self._left:
                self._kept[row] = found
                self._left -= found.nbytes
        return found
