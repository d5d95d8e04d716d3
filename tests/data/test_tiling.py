"""Tiles: every pixel in one core, every box counted once, nothing larger than a tile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data.tiling import WHOLE, owner, tiles

SIDES = st.integers(1, 1_500)
TILES = st.integers(20, 400)
MARGINS = st.integers(0, 60)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, TILES, MARGINS)
def test_cores_cover_the_picture_exactly_once_and_tiles_stay_in_it(width, height, tile_px, margin_px):
    covered = np.zeros((height, width), np.uint8)
    for tile in tiles(width, height, tile_px, margin_px):
        x1, y1, x2, y2 = tile.core
        covered[tile.top + y1 : tile.top + y2, tile.left + x1 : tile.left + x2] += 1
        assert 0 <= tile.left <= tile.left + tile.width <= width and 0 <= tile.top <= tile.top + tile.height <= height
        assert max(x2 - x1, y2 - y1) <= WHOLE * tile_px
        assert tile.width - (x2 - x1) <= 2 * margin_px and tile.height - (y2 - y1) <= 2 * margin_px
        assert x1 == min(margin_px, tile.left + x1) and tile.width - x2 == min(margin_px, width - tile.left - x2)
    assert (covered == 1).all()


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, TILES, MARGINS, st.tuples(*[st.floats(-2_000, 3_000)] * 4))
def test_every_box_has_one_owner_even_outside(width, height, tile_px, margin_px, box):
    found = tiles(width, height, tile_px, margin_px)
    here = owner(found, box)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if 0 <= x < width and 0 <= y < height:
        assert [n for n, tile in enumerate(found) if tile.owns(x, y)] in ([here], [])
    assert 0 <= here < len(found)


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.data())
def test_a_box_no_larger_than_two_margins_is_whole_in_its_owners_tile(width, height, data):
    margin = 48
    found = tiles(width, height, 400, margin)
    wide, high = (data.draw(st.integers(1, min(2 * margin, side))) for side in (width, height))
    x, y = data.draw(st.integers(0, width - wide)), data.draw(st.integers(0, height - high))
    box = (x, y, x + wide, y + high)
    tile = found[owner(found, box)]
    assert tile.cut(box) == tile.shifted(box)


def test_a_picture_a_little_larger_than_a_tile_stays_whole_and_a_larger_one_is_cut_evenly():
    assert [tile.core for tile in tiles(500, 400, 400, 48)] == [(0, 0, 500, 400)]
    cut = tiles(2_299, 501, 400, 48)
    assert len(cut) == 6 * 2
    assert {tile.core[2] - tile.core[0] for tile in cut} == {383, 384}
    assert (cut[1].left, cut[1].width, cut[1].core) == (335, 479, (48, 0, 431, 250))


def test_a_box_that_does_not_show_is_not_cut_and_sizes_must_make_sense():
    (tile,) = tiles(10, 10, 400, 0)
    assert tile.cut((10, 0, 12, 4)) is None and tile.cut((-3, -3, 4, 4)) == (0, 0, 4, 4)
    for wrong in ((0, 5, 5, 0), (5, 5, 0, 0), (5, 5, 5, -1)):
        with pytest.raises(ValueError, match="no tiles of"):
            tiles(*wrong)
