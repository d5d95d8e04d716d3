"""Digits through the data stages: what is kept, what is set aside and why, what the contract sees."""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lepton_platform.data.images import decode
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.digits import preprocess, source
from lepton_platform.tasks.digits.source import SourceParams
from tests.data.pictures import exif, noise, saved
from tests.tasks.stages import checked, cleaned, featured

DEMO = {"min_size": 64, "max_size": 1_000_000, "similarity": 0.95}


@pytest.fixture(scope="module")
def digits(cache_dir: Path) -> list[dict]:
    return list(source.records(SourceParams(limit=400), cache_dir))


def changed(row: dict, identity: str, **values) -> dict:
    return {**row, "id": identity, **values}


def test_real_digits_stay_and_their_damaged_copies_are_set_aside(digits, tmp_path):
    one, two, *rest = digits
    pixels = decode(one["image"])
    upside_down = saved(pixels[::-1, ::-1], "JPEG", exif=exif(3), quality=100)
    bad = [
        changed(one, "same", image=saved(pixels, "TIFF")),
        changed(two, "other label", label=str((int(two["label"]) + 1) % 10)),
        changed(one, "like", image=saved(pixels, "JPEG", quality=97)),
        changed(one, "turned", image=upside_down),
        changed(one, "cut", image=one["image"][:100]),
        changed(one, "text", image=b"seven"),
        changed(one, "label", label="seven", image=saved(noise(28, 28))),
        changed(one, "none", image=None),
        changed(one, "tiny", image=saved(noise(4, 4))),
        changed(one, "large", image=saved(np.zeros((1_100, 1_000), np.uint8))),
    ]
    stay, aside = cleaned("digits", [one, two, *rest, *bad], tmp_path, **DEMO)
    assert {name: aside[name]["reason"] for name in aside if name not in {row["id"] for row in digits}} == {
        "same": "duplicate",
        "other label": "contradiction",
        "like": "near_duplicate",
        "turned": "near_duplicate",
        "cut": "unreadable",
        "text": "unreadable",
        "label": "unknown_label",
        "none": "missing_field",
        "tiny": "too_small",
        "large": "too_large",
    }
    assert aside["cut"]["image"] == one["image"][:100] and "broken or cut off" in aside["cut"]["detail"]
    assert set(aside) & {row["id"] for row in digits} == {two["id"]}  # it is contradicted
    assert {row["id"] for row in stay} == {row["id"] for row in digits} - {two["id"]}
    assert all(row["image"] == preprocess.normalise(row["image"]) for row in stay)


def test_grey_stays_grey_and_colours_stay_colours():
    grey = preprocess.normalise(saved(np.repeat(noise(28, 28)[..., :1], 3, axis=2), "JPEG", mode="L"))
    with Image.open(BytesIO(grey)) as image:
        assert image.mode == "L"
    assert (decode(preprocess.normalise(saved(noise(28, 28)))) == noise(28, 28)).all()
    assert preprocess.identity(grey) == hashlib.sha256(grey).hexdigest() and preprocess.size(grey) == 784


@pytest.fixture(scope="module")
def clean(digits, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    cleaned("digits", digits, folder, **DEMO)
    return folder


def test_the_contract_holds_for_mnist_and_features_are_whole(clean):
    result = checked("digits", clean, min_rows=300)
    assert result["success"] and result["rows"] == 400
    views = featured("digits", clean)
    assert [len(view) for view in views.values()] == [400, 400]
    table = views["image_descriptor"].read()
    vectors = np.array(table["descriptor"].to_pylist())
    assert vectors.shape == (400, 214) and np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(400), abs=1e-5)
    assert set(views["image_statistics"].read()["width"].to_pylist()) == {28}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda rows: [row for row in rows if row["label"] != "3"], "Each 'label' makes up at least 5%"),
        (lambda rows: [*rows, {**rows[0], "id": "wide", "image": saved(noise(20, 2_000))}], "16 to 1024 pixels wide"),
    ],
)
def test_what_breaks_the_contract_is_named(digits, tmp_path, rows, said):
    cleaned("digits", rows(digits), tmp_path, **DEMO)
    with pytest.raises(StageFailed, match=said) as failed:
        checked("digits", tmp_path, min_rows=300)
    assert len(failed.value.details["failed"]) == 1
    assert "image" not in str(failed.value.details["failed"][0]["sample"])  # no content in a report
