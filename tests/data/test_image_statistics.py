"""What can be measured in a picture: the right numbers, whatever is measured beside it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from lepton_platform.data.image_statistics import STATISTICS, descriptors, statistics
from lepton_platform.data.images import decode
from tests.data.pictures import meadow, noise, saved

PICTURE = meadow(96, 120)


def one(picture: np.ndarray) -> dict[str, float]:
    return {name: float(values[0]) for name, values in statistics([picture]).items()}


def flat(*colour: int) -> np.ndarray:
    return np.full((40, 40, 3), colour, np.uint8)


def test_flat_colours_measure_what_they_are():
    red = one(flat(255, 0, 0))
    assert red["brightness"] == pytest.approx(0.299) and (red["red"], red["green"], red["saturation"]) == (1, 0, 1)
    assert red["contrast"] == red["sharpness"] == red["fine_detail"] == red["texture"] == 0 and red["blockiness"] == 1
    assert red["excess_green"] == pytest.approx(-1) and one(flat(0, 255, 0))["excess_green"] == pytest.approx(2)
    assert (one(flat(0, 255, 0))["green_share"], one(flat(9, 9, 9))["dark_share"]) == (1, 1)
    assert (one(flat(255, 255, 255))["bright_share"], one(flat(255, 255, 255))["haze"]) == (1, 1)


def test_sharpness_is_the_laplacians_variance():
    picture = noise(30, 40)
    light = picture @ np.array([0.299, 0.587, 0.114])
    padded = np.pad(light, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    assert one(picture)["sharpness"] == pytest.approx((around - 4 * light).var(), rel=1e-4)


def test_damages_move_what_measures_them():
    picture = np.clip(PICTURE.astype(int) + noise(96, 120) // 8, 0, 255).astype(np.uint8)
    whole = one(picture)
    blurred = one(np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2))))
    assert blurred["sharpness"] < whole["sharpness"] / 5 and blurred["fine_detail"] < whole["fine_detail"] / 5
    fog = one((picture * 0.4 + 120).astype(np.uint8))
    assert fog["haze"] > whole["haze"] + 0.3 and fog["saturation"] < whole["saturation"] / 2
    assert one(decode(saved(picture, "JPEG", quality=8)))["blockiness"] > 1.3 > whole["blockiness"]


@pytest.mark.parametrize("shift", [(0, 0), (3, 5)])
def test_a_grid_is_found_wherever_the_picture_was_cut(shift):
    blocky = decode(saved(meadow(160, 160), "JPEG", quality=5))[shift[0] :, shift[1] :]
    assert one(blocky)["blockiness"] > 1.5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=6))
def test_a_picture_measures_the_same_alone_and_among_others_and_is_always_finite(shapes):
    pictures = [noise(h, w, seed) for h, w, seed in shapes]
    together, vectors = statistics(pictures), descriptors(pictures, cells=2)
    assert np.isfinite(vectors).all() and all(np.isfinite(values).all() for values in together.values())
    for place, picture in enumerate(pictures):
        alone = one(picture)
        assert all(together[name][place] == pytest.approx(alone[name], rel=1e-5, abs=1e-6) for name in STATISTICS)
        assert vectors[place] == pytest.approx(descriptors([picture], cells=2)[0], abs=1e-5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(pictures)), abs=1e-5)


def test_descriptors_are_near_for_likes_and_far_for_others():
    picture, other = meadow(96, 96, 1), noise(96, 96)
    copy = decode(saved(picture, "JPEG", quality=80))
    a, b, c = descriptors([picture, copy, other])
    assert a @ b > 0.97 and a @ c < 0.8


def test_no_pictures_and_chosen_names():
    assert set(statistics([])) == set(STATISTICS) and descriptors([], 4).shape == (0, 64 + 8 * 16 + 10 + 12)
    assert list(statistics([PICTURE], ("haze", "width"))) == ["haze", "width"]
