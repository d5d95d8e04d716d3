"""The pictures of a table's rows, ready for a network: decoded once where they fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lepton_platform.models.image_input import as_input
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Decode = Callable[[bytes], Pixels]  # a file → (H, W, 3) RGB; ValueError for what is none

_KEPT_BYTES = 2 << 30


class Pictures:
    """``pictures[row]`` is (C, H, W) uint8, by ``config["input"]``. Beyond two gigabytes they are decoded each time."""

    def __init__(self, column: pa.ChunkedArray, decode: Decode, config: Mapping[str, Any]) -> None:
        self._files, self._decode, self._input = column, decode, config["input"]
        self._kept: dict[int, Pixels] = {}
        self._left = _KEPT_BYTES

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> Pixels:
        found = self._kept.get(row)
        if found is None:
            try:
                found = as_input(self._decode(self._files[row].as_py()), self._input)
            except ValueError as error:
                raise StageFailed(f"The picture of row {row} cannot be used: {error}.") from None
            if found.nbytes <= self._left:
                self._kept[row] = found
                self._left -= found.nbytes
        return found
