"""What a task must tell the training room: how a row becomes a batch, which network, which loss.

A task's ``model.py`` holds one ``LEARNER``. The room knows nothing else of the task: not its columns, not whether it
reads words, pixels or sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lepton_platform.models.batch import Batch
from lepton_platform.models.graph import Graph, Run

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import Tensor, nn

Config = Mapping[str, Any]  # JSON values: all that rebuilds the network, beside its weights


class Samples(Protocol):
    """Rows made ready once, to be asked for in any order."""

    @property
    def sizes(self) -> np.ndarray:
        """(N,) int: how much work each row is; rows of like size share a batch."""
        ...

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The rows of those numbers, in that order, on the CPU."""
        ...


class Learner(Protocol):
    """One way to learn. Everything is deterministic in its arguments and torch's generator.

    It may also have ``settled(network, frozen) -> Settled | None``: where a network is cut of which the parameters with the
    names ``frozen`` are never trained, if all of a first part are; see ``models/settled.py``.
    """

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the training set that are read, the target's among them."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """The names of the C scores, in order."""
        ...

    def configure(self, network: Mapping[str, Any], rows: pa.Table, folder: Path, cache: Path) -> dict[str, Any]:
        """Check the parameters' section ``network``; return the ``Config``, leave files that go with it in ``folder``.

        ``rows`` are the training rows: a vocabulary may be learnt from them.
        """
        ...

    def build(self, config: Config) -> nn.Module:
        """The network, with weights from torch's generator."""
        ...

    def start(self, network: nn.Module, config: Config, cache: Path) -> None:
        """Load what was learnt elsewhere, if the config says so. Not called where trained weights are loaded."""
        ...

    def encode(self, config: Config, folder: Path, rows: pa.Table, *, training: bool = False) -> Samples:
        """Rows to samples; without the target's column, samples without targets.

        ``training``: a batch may be another variant of its rows every time (augmentation). It draws from torch's
        generator alone, which the loop seeds before every batch.
        """
        ...

    def losses(self, outputs: Any, batch: Batch, label_smoothing: float) -> Tensor:
        """(B,) float32: the loss of every row; the room takes the mean over a batch, however it was shared out."""
        ...

    def measures(self, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        """(B,) each: figures whose means over the validation rows say how good the network is. ``loss`` is one."""
        ...

    def graphs(self, network: nn.Module, config: Config) -> Mapping[str, Graph]:
        """What the network is exported as, by name; see ``models/graph.py``."""
        ...

    def answer(self, run: Mapping[str, Run], inputs: Mapping[str, NDArray], config: Config, folder: Path) -> NDArray:
        """(B, …), what the task's evaluator reads: (B, C) probabilities, (B, K, 6) boxes, (B,) transcripts.

        ``run``: the graphs, whatever computes them; ``inputs``: of a batch, as arrays; ``folder``: the model's, for its files.
        """
        ...

    def depths(self, network: nn.Module) -> Mapping[str, int]:
        """Parameter's name → its distance from the output: 0 for the head, highest for the embeddings."""
        ...


class ModelPart(Protocol):
    """The module ``tasks/<task>/model.py``."""

    __name__: str

    @property
    def LEARNER(self) -> Learner: ...
