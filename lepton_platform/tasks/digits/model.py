"""What learns from digits: by default the Lepton CNN, two convolutions on the grey picture."""

from lepton_platform.models.image_classifier import ImageClassifier
from lepton_platform.tasks.digits.preprocess import CONTENT, LABEL, LABELS, decode

LEARNER = ImageClassifier(content=CONTENT, target=LABEL, labels=LABELS, decode=decode)
