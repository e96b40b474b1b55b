"""One photograph under zoom and pan: boxes follow the pixels, identities follow the objects."""

from __future__ import annotations

import numpy as np
import pytest

from onlooker.training.objects.zoom import View, random_view, zoom_photograph

BOXES = np.array([[10, 20, 30, 50], [60, 10, 90, 40], [0, 0, 0, 0]], np.float32)


def photograph() -> np.ndarray:
    picture = np.full((60, 100, 3), 40, np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(BOXES[:2].astype(int)):
        picture[y0:y1, x0:x1] = 0
        picture[y0:y1, x0:x1, number] = 255
    return picture


def test_views_lie_on_a_line_and_are_truncated() -> None:
    view = View(10, 20, 0, 3).towards(View(21, 20, 5, 0), 0.5)
    assert view == View(15, 20, 2, 1)
    assert View(10, 20, 0, 3).towards(View(21, 20, 5, 0), 1.0) == View(21, 20, 5, 0)


def test_a_view_is_drawn_within_the_scaled_photograph() -> None:
    rng = np.random.default_rng(0)
    views = [random_view(rng, 60, 100, 64) for _ in range(400)]
    scales = np.array([view.height / 60 for view in views])
    assert scales.min() < 0.2 and scales.max() > 1.9 and abs(scales.mean() - 1.05) < 0.1
    for view in views:
        assert abs(view.width / 100 - view.height / 60) < 0.02
        assert 0 <= view.top <= max(0, view.height - 64) and 0 <= view.left <= max(0, view.width - 64)
        assert view.width > 64 or view.left == 0
    assert max(view.left for view in views) > 50


def test_the_whole_photograph_stays_as_it_is_and_is_padded_below_and_right() -> None:
    whole = View(60, 100, 0, 0)
    video = zoom_photograph(photograph(), BOXES, whole, whole, 3, 128)
    assert video.frames.shape == (3, 128, 128, 3)
    np.testing.assert_array_equal(video.frames[1, :60, :100], photograph())
    assert not video.frames[:, 60:].any() and not video.frames[:, :, 100:].any()
    np.testing.assert_array_equal(video.boxes[2], BOXES)
    assert video.ids.tolist() == [[1, 2, 0]] * 3


def test_boxes_follow_the_pixels_and_out_of_view_there_is_no_identity() -> None:
    """From the whole to the upper right at twice the size, where the first object is out of view."""
    video = zoom_photograph(photograph(), BOXES, View(60, 100, 0, 0), View(120, 200, 0, 100), 8, 64)
    assert video.ids[0].tolist() == [1, 2, 0] and video.ids[-1].tolist() == [0, 2, 0]
    np.testing.assert_allclose(video.boxes[-1, 1], [20, 20, 64, 64])
    compared = 0
    for t, k in np.argwhere(video.ids > 0):
        found = video.frames[t, :, :, k] > 150
        rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
        if len(rows) and (video.boxes[t, k, 2:] - video.boxes[t, k, :2]).min() > 4:
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(video.boxes[t, k] - box).max() <= 1.5
            compared += 1
    assert compared >= 10
    assert (video.boxes[video.ids == 0] == 0).all()


def test_a_window_over_the_edge_shows_black() -> None:
    """Half way between two views at their own edges the window may reach beyond: the reference shows black there."""
    first, last = View(40, 64, 0, 0), View(240, 400, 176, 336)
    video = zoom_photograph(photograph(), BOXES, first, last, 3, 64)
    assert video.frames[1, -1, -1].tolist() == [0, 0, 0] or video.frames[1].any()
    height = int(140 - 88)  # what is left of the photograph below the window's top
    assert not video.frames[1, height:].any() and video.frames[1, : height - 1].any()


@pytest.mark.parametrize("boxes", [np.zeros((0, 4), np.float32), BOXES])
def test_shapes_do_not_depend_on_how_much_there_is(boxes: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    video = zoom_photograph(photograph(), boxes, random_view(rng, 60, 100, 64), random_view(rng, 60, 100, 64), 5, 64)
    assert video.boxes.shape == (5, len(boxes), 4) and video.ids.shape == (5, len(boxes))
    assert video.boxes.dtype == np.float32 and video.ids.dtype == np.int64
