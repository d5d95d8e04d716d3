"""Views of a picture: boxes go where their pixels go, and nothing else draws than torch's generator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lepton_platform.models.augment import Augmentation, view

SIDE = 96
COLOURS = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05, "grey_share": 0.2}
hows = st.fixed_dictionaries(
    {
        "crop_px": st.sampled_from([None, 48, 64, 128]),
        "zoom": st.floats(1, 1.6),
        "stretch": st.floats(1, 1.3),
        "shift_px": st.integers(0, 8),
        "degrees": st.sampled_from([0.0, 0.0, 8.0]),
        "shear_degrees": st.sampled_from([0.0, 0.0, 4.0]),
        "flip_horizontal": st.booleans(),
        "flip_vertical": st.booleans(),
        "quarter_turns": st.booleans(),
    }
)
corners = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(12, 30), st.integers(12, 30))


def painted(box: tuple[int, int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A black picture with one white rectangle, and the box round it."""
    x, y, width, height = box
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    image[:, y : y + height, x : x + width] = 255
    return image, torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32)


def seen_box(image: torch.Tensor) -> np.ndarray:
    """Round what is brighter than half."""
    y, x = np.nonzero(image[0].numpy() > 127)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


@settings(max_examples=150, deadline=None)
@given(hows, corners, st.integers(0, 2**31))
def test_the_box_stays_round_its_pixels(how, corner, seed):
    """Turned by an angle it is the box round the turned rectangle."""
    torch.manual_seed(seed)
    seen = view(*painted(corner), Augmentation(**how, min_visible=0.4))
    side = how["crop_px"] or SIDE
    assert seen.image.shape == (3, side, side) and seen.image.dtype == torch.uint8
    assert (seen.boxes >= 0).all() and (seen.boxes <= side).all()
    if not len(seen.boxes):
        assert not (seen.image > 200).any() or how["degrees"] or how["shear_degrees"]
        return
    if bool(seen.whole[0]) and (seen.image > 127).any():
        assert np.abs(seen.boxes[0].numpy() - seen_box(seen.image)).max() <= 2.5  # pixels: edges are interpolated


@settings(max_examples=30, deadline=None)
@given(hows, st.integers(0, 2**31))
def test_a_view_is_the_seeds_alone(how, seed):
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[3.0, 4, 20, 30], [40, 40, 90, 80]])
    options = Augmentation(**how, **COLOURS)
    views = []
    for _ in range(2):
        torch.manual_seed(seed)
        views.append(view(image, boxes, options))
    assert all(torch.equal(one, other) for one, other in zip(*views, strict=True))


def test_without_wishes_a_view_is_the_picture():
    image, boxes = painted((10, 20, 30, 15))
    seen = view(image, boxes, Augmentation())
    assert torch.equal(seen.image, image) and torch.equal(seen.boxes, boxes)
    assert seen.whole.tolist() == [True] and seen.kept.tolist() == [0]


@settings(max_examples=40, deadline=None)
@given(corners, st.integers(0, 2**31))
def test_views_are_aimed_at_boxes(corner, seed):
    torch.manual_seed(seed)
    seen = view(*painted(corner), Augmentation(crop_px=48, on_box_share=1.0))
    assert len(seen.boxes) == 1  # its middle is in the view


def test_a_box_of_which_little_is_left_is_said_to_be_cut():
    torch.manual_seed(0)
    image, boxes = painted((40, 40, 20, 20))
    options = Augmentation(crop_px=32, on_box_share=0.0, min_visible=0.5)
    views = [view(image, boxes, options) for _ in range(200)]
    shares = [(float((v.boxes[0, 2:] - v.boxes[0, :2]).prod()) / 400, bool(v.whole[0])) for v in views if len(v.boxes)]
    assert {whole for _, whole in shares} == {True, False}
    assert all(whole == (share >= 0.5) for share, whole in shares)


def test_colours_change_and_places_do_not():
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
    boxes = torch.tensor([[3.0, 4, 20, 30]])
    seen = view(image, boxes, Augmentation(**COLOURS))
    assert torch.equal(seen.boxes, boxes) and not torch.equal(seen.image, image)
    assert len(view(image, torch.zeros(0, 4), Augmentation(zoom=1.3, degrees=5)).boxes) == 0


def test_impossible_wishes_are_refused():
    for wrong in ({"zoom": 0.5}, {"crop_px": 8}, {"flips": True}, {"hue": 0.9}):
        with pytest.raises(ValidationError):
            Augmentation(**wrong)
