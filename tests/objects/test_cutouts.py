"""Captions of objects from cut-outs, by the embedded tower and captioner."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from onlooker.operators.caption.load import load_captioner
from onlooker.operators.objects.captioning import FrameDescriber
from onlooker.operators.objects.cutouts import CutoutCaptioner, as_picture, cut_out
from onlooker.operators.objects.views import Cutout
from onlooker.operators.tower import load_tower

HALVES = np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]], np.float32)


@pytest.fixture(scope="module")
def describer() -> CutoutCaptioner:
    return CutoutCaptioner(load_captioner("tiny"), load_tower("tiny"))


def side_by_side() -> np.ndarray:
    """Two photographs (224, 448, 3): a woman, and a cat."""
    return np.concatenate([data.astronaut()[:448:2, :448:2], data.chelsea()[20:244, 100:324]], axis=1)


def whole(pixels: np.ndarray, clear: float = 1.0) -> Cutout:
    """A view that shows its object alone, of which a part is `clear`."""
    size = pixels.shape[0] * pixels.shape[1]
    return Cutout(pixels, int(clear * size), size)


def test_a_cut_out_is_a_part_of_the_frame() -> None:
    frame = np.arange(40 * 80 * 3, dtype=np.uint8).reshape(40, 80, 3)
    assert np.array_equal(cut_out(frame, (0.25, 0.5, 0.5, 1.0)), frame[20:, 20:40])
    assert np.array_equal(cut_out(frame, (0.25, 0.5, 0.5, 0.75), 0.5), frame[15:35, 10:50])
    assert np.array_equal(cut_out(frame, (0.0, 0.0, 1.0, 1.0), 0.5), frame)
    for empty in ((0.5, 0.5, 0.5, 0.5), (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0)):
        assert cut_out(frame, empty).shape == (1, 1, 3)


def test_views_know_how_much_of_them_is_in_other_boxes(describer: CutoutCaptioner) -> None:
    assert isinstance(describer, FrameDescriber)
    frame = np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)
    boxes = np.array([[0, 0, 0.5, 1], [0.25, 0.5, 0.75, 1], [0.5, 0, 0.75, 0.5], [0.25, 0, 0.375, 1]], np.float32)
    views = describer.look(frame, boxes, 2.0)
    assert [view.clear / view.size for view in views] == [0.625, 0.5, 1.0, 0.0]
    assert all(view.pixels.base is None for view in views)  # a part of the frame would keep all of it
    assert describer.look(frame, boxes[:0], 2.0) == []


def test_a_long_object_is_shown_with_what_is_beside_it() -> None:
    # A person in a picture that is twice as wide as high, 3 times as high as wide; at the edge, what is there is shown.
    assert as_picture((0.45, 0.2, 0.55, 0.8), 2.0) == pytest.approx((0.3875, 0.2, 0.6125, 0.8))
    assert as_picture((0.0, 0.2, 0.1, 0.8), 2.0) == pytest.approx((0.0, 0.2, 0.225, 0.8))
    assert as_picture((0.0, 0.9, 1.0, 1.0), 1.0) == pytest.approx((0.0, 0.25, 1.0, 1.0))
    assert as_picture((0.0, 0.4, 1.0, 0.6), 4.0) == pytest.approx((0.0, 0.0, 1.0, 1.0))  # there is no more
    assert as_picture((0.2, 0.2, 0.5, 0.6), 16 / 9) == pytest.approx((0.2, 0.2, 0.5, 0.6))  # a photograph already


def test_an_object_is_told_of_as_if_it_were_all_there_is(describer: CutoutCaptioner) -> None:
    frame = side_by_side()
    left, right = describer.look(frame, HALVES, 2.0)
    told = describer.caption([[left], [right]])
    assert told == [describer.caption([[whole(view)]])[0] for view in (frame[:, :224], frame[:, 224:])]
    assert told[0][0] != told[1][0]


def test_the_view_that_shows_most_counts(describer: CutoutCaptioner) -> None:
    left, right = describer.look(side_by_side(), HALVES, 2.0)
    small_left, small_right = (whole(view.pixels[::2, ::2]) for view in (left, right))
    alone_left, alone_right = describer.caption([[left], [right]])
    assert describer.caption([[small_right, left, small_right]]) == [alone_left]
    # What another object covers does not count, but decides where everything is covered.
    hidden = whole(right.pixels, clear=0.1)
    assert describer.caption([[hidden, small_left]]) == describer.caption([[small_left]]) != [alone_right]
    assert describer.caption([[whole(small_left.pixels, 0.0), whole(right.pixels, 0.0)]]) == [alone_right]
