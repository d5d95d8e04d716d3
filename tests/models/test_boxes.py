"""Boxes in numpy: overlaps, suppression, cores, and who found what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lepton_platform.models import boxes as b
from lepton_platform.models.image_input import fit, pad
from lepton_platform.models.matching import average_precision, match


@st.composite
def some_boxes(draw, least=0, most=12, side=100):
    """(K, 4) float32 with a positive area, inside a square of ``side``."""
    many = draw(st.integers(least, most))
    found = draw(arrays.arrays(np.float32, (many, 4), elements=st.floats(0, side - 1, width=32)))
    low, high = np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:])
    return np.hstack([low, high + 1]).astype(np.float32)


@given(some_boxes(), some_boxes())
def test_overlap_is_a_share_and_the_same_both_ways(one, other):
    found = b.iou(one, other)
    assert found.shape == (len(one), len(other))
    assert ((found >= 0) & (found <= 1 + 1e-6)).all()
    assert np.allclose(found, b.iou(other, one).T)
    assert np.allclose(np.diag(b.iou(one, one)), 1)


def test_overlap_of_known_boxes():
    assert b.iou([[0, 0, 2, 2]], [[1, 1, 3, 3], [5, 5, 6, 6], [0, 0, 2, 2]]).tolist() == [[pytest.approx(1 / 7), 0, 1]]
    assert b.iou([[1, 1, 1, 1]], [[1, 1, 1, 1]]).tolist() == [[0]]  # nothing overlaps nothing


@given(some_boxes(), st.data(), st.floats(0, 0.9))
def test_what_suppression_leaves_does_not_overlap_and_what_it_takes_did(boxes, data, limit):
    scores = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(boxes), max_size=len(boxes))))
    kept = b.nms(boxes, scores, limit)
    assert (np.diff(scores[kept]) <= 0).all()
    overlaps = b.iou(boxes, boxes)
    for place, number in enumerate(kept):
        assert (overlaps[number, kept[:place]] <= limit).all()
    for lost in set(range(len(boxes))) - set(kept.tolist()):
        surer = [n for n in kept if scores[n] >= scores[lost]]
        assert overlaps[lost, surer].max() > limit


@given(some_boxes(least=1))
def test_suppression_of_shuffled_boxes_keeps_the_same_ones(boxes):
    scores = np.linspace(1, 0.1, len(boxes))
    order = np.random.default_rng(0).permutation(len(boxes))
    assert order[b.nms(boxes[order], scores[order], 0.5)].tolist() == b.nms(boxes, scores, 0.5).tolist()


def test_a_dense_answer_becomes_boxes_of_each_class():
    same = [0.0, 0.0, 10.0, 10.0]
    dense = np.array(
        [[*same, 2.0, -9.0], [0, 0, 10, 9, 3.0, -9.0], [*same, -9.0, 1.0], [50, 50, 60, 60, -1.0, -9.0]], np.float32
    )
    found = b.detections(dense, score_threshold=0.2, iou_threshold=0.5, max_detections=10)
    assert found[:, 5].tolist() == [0, 1, 0]  # classes do not suppress each other; the sigmoid of -1 is above 0.2
    assert found[0].tolist() == pytest.approx([0, 0, 10, 9, 1 / (1 + np.exp(-3.0)), 0])
    assert len(b.detections(dense, score_threshold=0.2, iou_threshold=0.5, max_detections=1)) == 1
    assert b.detections(dense, score_threshold=0.99, iou_threshold=0.5, max_detections=9).shape == (0, 6)


@given(some_boxes(side=200), st.integers(20, 150), st.integers(20, 150))
def test_boxes_are_cut_to_the_picture(boxes, width, height):
    cut = b.clipped(np.hstack([boxes, np.ones((len(boxes), 2), np.float32)]), width, height)
    assert (b.area(cut[:, :4]) > 0).all() and (cut[:, :4] >= 0).all()
    assert (cut[:, 2] <= width).all() and (cut[:, 3] <= height).all()
    assert len(cut) == (b.intersection(boxes, [[0, 0, width, height]])[:, 0] > 0).sum()


@given(some_boxes(side=99), st.integers(1, 99), st.integers(1, 99))
def test_a_box_is_in_one_core_of_four(boxes, x, y):
    cores = [(0, 0, x, y), (x, 0, 100, y), (0, y, x, 100), (x, y, 100, 100)]
    assert (sum(b.in_core(boxes, core).astype(int) for core in cores) == 1).all()


def test_pictures_are_fitted_and_padded():
    grey = np.random.default_rng(0).integers(0, 256, (7, 5, 1), dtype=np.uint8).repeat(3, axis=2)
    assert np.array_equal(fit(grey, 1, None)[0], grey[:, :, 0])
    assert fit(grey, 3, (28, 14)).shape == (3, 28, 14)
    assert np.array_equal(fit(np.full((40, 60, 3), 9, np.uint8), 3, (28, 28)), np.full((3, 28, 28), 9))
    padded = pad([fit(grey, 3, None), fit(grey, 3, (33, 2))], 32)
    assert padded.shape == (2, 3, 64, 32)
    assert np.array_equal(padded[0, :, :7, :5], fit(grey, 3, None)) and not padded[0, :, 7:].any()
    for wrong in (grey[:, :, 0], grey.astype(float)):
        with pytest.raises(ValueError, match="uint8"):
            fit(wrong, 1, None)
    with pytest.raises(ValueError, match="1 or 3"):
        fit(grey, 2, None)


@given(some_boxes(), some_boxes(), st.data())
def test_a_box_is_found_once_and_by_the_surest(answers, truth, data):
    scores = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(answers), max_size=len(answers))))
    nobody = np.zeros(len(truth), dtype=bool)
    found = match(answers, scores, truth, nobody, (0.1, 0.5))
    overlaps = b.iou(answers, truth)
    for limit, boxes in zip((0.1, 0.5), found.box, strict=True):
        taken = boxes[boxes >= 0]
        assert len(set(taken.tolist())) == len(taken)
        assert all(overlaps[k, m] >= limit - 1e-6 for k, m in enumerate(boxes) if m >= 0)
        for k in np.flatnonzero(boxes < 0):  # all that it could have had are taken by surer ones
            for m in np.flatnonzero(overlaps[k] >= limit + 1e-6):
                assert any(n == m and scores[j] >= scores[k] for j, n in enumerate(boxes))


def test_inside_a_crowd_nothing_is_wrong():
    truth, crowd = np.array([[0, 0, 100, 100], [0, 0, 10, 10]]), np.array([True, False])
    answers = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [52, 52, 62, 62], [200, 0, 210, 10]])
    found = match(answers, np.array([0.9, 0.8, 0.7, 0.6]), truth, crowd, (0.5,))
    assert found.box[0].tolist() == [1, 0, 0, -1]
    assert found.ignored[0].tolist() == [False, True, True, False]
    assert found.right[0].tolist() == [True, False, False, False]


def test_average_precision_of_known_answers():
    scores, right = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    said = np.ones(3)
    half = average_precision(scores, right, said, 2)  # precision 1 up to recall 0.5, then 2/3
    assert half == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(scores, right, said, 4) == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert np.isnan(average_precision(scores, right, said, 0))
    assert average_precision(np.zeros(0), np.zeros(0), np.zeros(0), 3) == 0
    twice = average_precision(scores, np.stack([right, right * 2]), np.stack([said, said * 2]), np.array([2, 4]))
    assert np.allclose(twice, half)  # every picture drawn twice changes nothing
