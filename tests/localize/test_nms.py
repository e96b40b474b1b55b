"""Non-maximum suppression: every pick replayed in float64, and what hard suppression promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onlooker.operators.localize.metrics.recall import segment_iou
from onlooker.operators.localize.unloc.nms import NmsOptions, soft_nms

_TIMES = st.integers(-5, 60)
_ROWS = st.lists(st.tuples(_TIMES, _TIMES, st.floats(0, 1, width=32)), max_size=40)


def arrays_of(rows: list[tuple[int, int, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Segments, of which some are reversed or without length, and scores."""
    table = np.array(rows, np.float64).reshape(-1, 3)
    return table[:, :2], table[:, 2]


@given(_ROWS, st.sampled_from([0.1, 0.3, 0.5]), st.integers(1, 40), st.sampled_from([0.001, 0.3]))
def test_soft_picks_are_those_of_a_plain_loop(
    rows: list[tuple[int, int, float]], sigma: float, most: int, threshold: float
) -> None:
    segments, scores = arrays_of(rows)
    chosen, found = soft_nms(segments, scores, NmsOptions(sigma, threshold, max_output=most))
    left, iou = scores.copy(), segment_iou(np.sort(segments), np.sort(segments))
    for pick, score in zip(chosen, found, strict=True):
        # Which of two scores within float noise comes first is free.
        assert left[pick] >= left.max() - 1e-5
        assert score == pytest.approx(left[pick], abs=1e-5)
        left *= np.exp(-(iou[pick] ** 2) / (2 * sigma))
        left[pick] = -np.inf
    assert len(chosen) == most or left.max(initial=-np.inf) <= threshold + 1e-5


@given(_ROWS, st.sampled_from([0.25, 0.5, 0.75]))
def test_hard_suppression_keeps_the_best_of_what_overlaps(rows: list[tuple[int, int, float]], limit: float) -> None:
    segments, scores = arrays_of(rows)
    chosen, found = soft_nms(segments, scores, NmsOptions(0.0, 0.001, limit, 100))
    assert found.tolist() == scores[chosen].astype(np.float32).tolist()
    assert (np.diff(found) <= 0).all()
    overlaps = segment_iou(np.sort(segments), np.sort(segments)) > limit
    assert not overlaps[np.ix_(chosen, chosen)][~np.eye(len(chosen), dtype=bool)].any()
    for row in set(range(len(scores))) - set(chosen.tolist()):
        better = [pick for pick in chosen if scores[pick] >= scores[row] and overlaps[pick, row]]
        assert better or scores[row] <= np.float32(0.001)


def test_a_threshold_of_overlap_has_no_effect_on_soft_suppression() -> None:
    segments, scores = [(0, 100), (0, 99)], [0.9, 0.8]
    assert len(soft_nms(segments, scores, NmsOptions(sigma=0.3, iou_threshold=0.5))[0]) == 2
    assert len(soft_nms(segments, scores, NmsOptions(sigma=0.0, iou_threshold=0.5))[0]) == 1


def test_the_first_of_equal_scores_comes_first() -> None:
    chosen, _ = soft_nms([(0, 1), (5, 6), (2, 3)], [0.5, 0.5, 0.5])
    assert chosen.tolist() == [0, 1, 2]


def test_a_very_narrow_decay_and_negative_thresholds_do_no_harm() -> None:
    assert len(soft_nms([(0, 1)] * 3, [0.9, 0.8, 0.7], NmsOptions(sigma=1e-4))[0]) == 1
    assert len(soft_nms([(0, 1)] * 3, [0.9, 0.8, 0.7], NmsOptions(sigma=0.0, score_threshold=-1.0))[0]) == 1


def test_nothing_gives_nothing() -> None:
    chosen, scores = soft_nms(np.zeros((0, 2)), np.zeros(0))
    assert chosen.shape == scores.shape == (0,)


def test_segments_without_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="2 segments with 1 scores"):
        soft_nms([(0, 1), (1, 2)], [0.5])
