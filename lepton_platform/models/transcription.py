"""What a speech network says to a recording, whatever the network is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word and when it is said, in seconds from the beginning of the recording; ``score``: how sure, from 0 to 1."""

    text: str
    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class Transcript:
    """``score``: the mean probability of what was said. ``words``: empty where the network gives no times."""

    text: str
    score: float
    words: tuple[Word, ...] = ()
    seconds: float = 0.0  # of the recording
