"""A learner that has nothing to do with words: points in the plane, two classes, rows of different size.

What it can do the room can do; later tasks bring pictures and sounds.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional as F

from lepton_platform.models.batch import Batch
from lepton_platform.models.one_graph import OneGraph


class Net(nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(dropout))
        self.head = nn.Linear(16, 2)

    def forward(self, points):
        return self.head(self.body(points))


@dataclass
class Points:
    points: np.ndarray
    targets: np.ndarray
    sizes: np.ndarray
    jitter: float = 0.0  # as the views of a picture: drawn for every batch

    def batch(self, rows):
        chosen = torch.from_numpy(np.asarray(rows, np.int64))
        points = torch.from_numpy(self.points)[chosen]
        moved = points + self.jitter * torch.randn(points.shape) if self.jitter else points
        return Batch({"points": moved}, {"side": torch.from_numpy(self.targets)[chosen]})


class Blobs(OneGraph):
    columns = ("x", "y", "side")
    labels = ("left", "right")

    def configure(self, network, rows, folder, cache):
        return {"dropout": 0.0, "jitter": 0.0, **network, "labels": list(self.labels)}

    def build(self, config):
        return Net(config["dropout"])

    def start(self, network, config, cache):
        pass

    def encode(self, config, folder, rows, *, training=False):
        points = np.stack([rows["x"].to_numpy(), rows["y"].to_numpy()], 1).astype(np.float32)
        sizes, jitter = np.arange(rows.num_rows) % 7, config["jitter"] if training else 0.0
        return Points(points, rows["side"].to_numpy().astype(np.int64), sizes, jitter)

    def losses(self, outputs, batch, label_smoothing):
        return F.cross_entropy(outputs, batch.targets["side"], reduction="none", label_smoothing=label_smoothing)

    def measures(self, outputs, batch):
        right = (outputs.argmax(1) == batch.targets["side"]).float()
        return {"loss": self.losses(outputs, batch, 0.0), "accuracy": right}

    def scores(self, outputs, config):
        return outputs.softmax(1)

    def examples(self, config):
        return {"points": torch.zeros(2, 2)}, {"points": torch.zeros(3, 2)}

    def depths(self, network):
        return {name: 0 if name.startswith("head") else 1 for name, _ in network.named_parameters()}


LEARNER = Blobs()


def table(rows: int, seed: int, noise: float = 0.3) -> pa.Table:
    """Two clouds; a share of ``noise`` of the rows has a side drawn at random."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, rows)
    points = rng.normal(size=(rows, 2)) + 2.0 * side[:, None]
    told = np.where(rng.random(rows) < noise, rng.integers(0, 2, rows), side)
    return pa.table({"x": points[:, 0], "y": points[:, 1], "side": told})
