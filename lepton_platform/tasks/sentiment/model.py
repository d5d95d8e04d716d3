"""What learns from reviews: a network that labels texts, by default the MiniLM encoder with a linear head."""

from lepton_platform.models.text_classifier import TextClassifier
from lepton_platform.tasks.sentiment.preprocess import CONTENT, LABEL, LABELS

LEARNER = TextClassifier(content=CONTENT, target=LABEL, labels=LABELS)
