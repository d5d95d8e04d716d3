"""Drift of digits: other digits pass, damaged ones do not. Windows judged as the check judges them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from lepton_platform.data.images import decode, encode_png
from lepton_platform.monitoring.reference import ReferenceParams
from lepton_platform.tasks.digits import drift, source
from lepton_platform.tasks.digits.source import SourceParams
from tests.tasks.windows import Windows

PARAMS = ReferenceParams(windows=400)
DAMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverted": lambda digit: 255 - digit,
    "soft": lambda digit: np.asarray(Image.fromarray(digit).filter(ImageFilter.GaussianBlur(1))),
    "faint": lambda digit: (digit * 0.5).astype(np.uint8),
    "on its side": lambda digit: np.rot90(digit),
    "mirrored": lambda digit: digit[:, ::-1],
    "noisy": lambda digit: np.clip(digit + np.random.default_rng(0).normal(0, 25, digit.shape), 0, 255).astype(
        np.uint8
    ),
}


@pytest.fixture(scope="module")
def digits(cache_dir: Path) -> list[np.ndarray]:
    return [decode(row["image"]) for row in source.records(SourceParams(limit=3_500), cache_dir)]


@pytest.fixture(scope="module")
def windows(digits) -> Windows:
    return Windows(drift, rows(digits[:2_000]), PARAMS)


def rows(pictures: list[np.ndarray]) -> pa.Table:
    return pa.table({"image": [encode_png(np.ascontiguousarray(picture)) for picture in pictures]})


def test_other_digits_seldom_alarm(windows, digits):
    alarms = windows.alarms(rows(digits[2_000:]), (50, 100, 200), repeats=60)
    assert max(alarms.values()) <= 3, alarms


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_digits_always_alarm(windows, digits, name):
    damaged = rows([DAMAGES[name](digit) for digit in digits[2_000:2_200]])
    assert windows.alarms(damaged, (50, 100), repeats=30) == {50: 30, 100: 30}


def test_answers_are_labels_and_how_sure_the_model_is():
    found = drift.answers(pa.table({"label": ["1", "7"], "score": [0.5, 0.75]}))
    assert found.numbers["score"].tolist() == [0.5, 0.75] and found.classes["label"].tolist() == ["1", "7"]
