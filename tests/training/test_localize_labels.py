"""Labels of UnLoc against a plain loop over segments and steps, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.localize.unloc.sampling import Sampling
from onlooker.training.localize_labels import (
    PADDING,
    LabelOptions,
    caption_mask,
    class_labels,
    frame_labels,
    moment_labels,
)

OPTIONS = LabelOptions(((0.0, 4.0), (4.0, 9.0), (9.0, np.inf)), radius=1.5)
SAMPLING = Sampling("random", 16, 24, offset=3)
"""Positions are whole frames, so that a loop in float64 must agree to the bit."""

_SEGMENTS = st.lists(st.tuples(st.integers(0, 23), st.integers(0, 12), st.integers(-1, 2)), max_size=5)


def belongs(t: float, start: float, end: float, level: int) -> bool:
    low, high = OPTIONS.ranges[level]
    centre, radius = (start + end) / 2, 1.5 * 2**level
    inside = max(start, centre - radius) <= t <= min(end, centre + radius)
    return inside and low <= max(t - start, end - t) < high


@given(_SEGMENTS)
def test_class_labels_are_those_of_a_plain_loop(rows: list[tuple[int, int, int]]) -> None:
    segments = [(start, start + length) for start, length, _ in rows]
    found = class_labels(segments, [c for *_, c in rows], 3, SAMPLING, OPTIONS)
    steps = [(level, 3 + i * 2**level) for level in range(3) for i in range(16 // 2**level)]
    for n, (level, t) in enumerate(steps):
        for c in range(3):
            own = [segment for segment, (*_, owner) in zip(segments, rows, strict=True) if owner == c]
            assert found.positive[n, c] == any(belongs(t, *segment, level) for segment in own)
            before = min([t - start for start, _ in own if t >= start] + [25])
            after = min([end - t for _, end in own if end >= t] + [25])
            assert found.displacements[n, c].tolist() == [before / 2**level, after / 2**level]


def test_a_class_of_its_own_is_a_moment() -> None:
    segments = [(4, 9), (PADDING, PADDING)]
    texts = moment_labels(segments, SAMPLING, OPTIONS)
    classes = class_labels(segments, [0, -1], 1, SAMPLING, OPTIONS)
    assert texts.positive[0].tolist() == classes.positive[:, 0].tolist()
    inside = texts.positive[0] > 0
    assert inside.any() and not texts.positive[1].any()
    assert texts.displacements[0][inside].tolist() == classes.displacements[inside, 0].tolist()
    assert caption_mask(segments).tolist() == [True, False]


def test_displacements_across_classes_are_the_nearest_of_any() -> None:
    segments, classes = [(4, 9), (12, 20)], [0, 1]
    apart = class_labels(segments, classes, 2, SAMPLING, OPTIONS)
    across = class_labels(segments, classes, 2, SAMPLING, OPTIONS, across_classes=True)
    assert across.displacements.tolist() == apart.displacements.min(axis=1).tolist()


def test_displacements_in_steps_are_strides_times_those_in_strides() -> None:
    plain = moment_labels([(4, 9)], SAMPLING, replace(OPTIONS, normalize=False))
    strides = OPTIONS.anchors(16).strides[:, None]
    assert plain.displacements.tolist() == (moment_labels([(4, 9)], SAMPLING, OPTIONS).displacements * strides).tolist()


def test_the_last_of_overlapping_segments_labels_a_frame() -> None:
    found = frame_labels([(1, 3), (3, 4), (9, 9)], [0, 1, -1], 2, Sampling("random", 6, 6))
    assert found.tolist() == [[0, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]


def test_unknown_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"classes are 0 .. 2, or -1 for none; found 0 .. 3"):
        class_labels([(0, 1), (1, 2)], [0, 3], 3, SAMPLING, OPTIONS)
