"""What learns to find trees: by default a small one-stage detector, trained from scratch."""

from lepton_platform.models.detection import Detection
from lepton_platform.tasks.trees.preprocess import CONTENT, LABELS, decode

BOXES = "boxes"  # the column of the true ones

LEARNER = Detection(content=CONTENT, target=BOXES, labels=LABELS, decode=decode)
