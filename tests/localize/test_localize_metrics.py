"""Metrics of localization on small examples whose values follow by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.localize.metrics.detection import VideoSegments, detection_scores
from onlooker.operators.localize.metrics.frames import (
    class_average_precision,
    frame_accuracy,
    top_one_correct,
    unique_videos,
)
from onlooker.operators.localize.metrics.recall import recall_at, segment_iou


def test_iou() -> None:
    assert segment_iou([(0, 10)], [(5, 15), (10, 20), (2, 8), (8, 2)]).tolist() == [[1 / 3, 0, 0.6, 0]]


def test_one_of_several_moments_is_enough_and_texts_without_any_do_not_count() -> None:
    truth = [[(0, 10), (50, 60)], [], [(0, 10)], [(0, 10)]]
    predicted = [[(20, 30), (50, 60)], [(0, 1)], [], [(0, 6), (0, 10)]]
    scores = [[0.2, 0.9], [1.0], [], [0.5, 0.4]]
    found = recall_at(truth, predicted, scores)
    assert found == {(1, 0.5): 2 / 3, (1, 0.7): 1 / 3, (5, 0.5): 2 / 3, (5, 0.7): 2 / 3}
    assert math.isnan(recall_at([[]], [[(0, 1)]], [[1.0]])[1, 0.5])


def one_video(
    truth: list[tuple[float, float]], detected: list[tuple[float, float]], scores: list[float]
) -> VideoSegments:
    return VideoSegments(truth, [0] * len(truth), detected, scores, [0] * len(detected))


def test_average_precision_by_hand() -> None:
    """Right, wrong, right: the second half of the recall comes at a precision of 2/3."""
    video = one_video([(0, 10), (20, 30)], [(0, 10), (50, 60), (20, 30)], [0.9, 0.8, 0.7])
    assert detection_scores([video]).mean([0.5]) == pytest.approx((1 + 2 / 3) / 2)


def test_the_second_detection_of_a_segment_is_wrong() -> None:
    video = one_video([(0, 10), (20, 30)], [(0, 10), (0, 10), (20, 30)], [0.9, 0.8, 0.7])
    assert detection_scores([video]).mean([0.5]) == pytest.approx((1 + 2 / 3) / 2)


def test_detections_of_another_video_are_wrong() -> None:
    videos = [one_video([(0, 10)], [], []), one_video([], [(0, 10)], [0.9])]
    assert detection_scores(videos).mean([0.5]) == 0


def test_classes_without_truth() -> None:
    video = VideoSegments([(0, 10)], [0], [(0, 10), (0, 10)], [0.9, 0.8], [0, 1])
    scores = detection_scores([video], num_classes=3)
    np.testing.assert_array_equal(scores.per_class(), [1, np.nan, 0])
    assert scores.mean() == 0.5
    assert scores.mean(present_only=True) == 1
    with pytest.raises(ValueError, match=r"IoU 0.33 is none of 0.05, 0.10"):
        scores.mean([0.33])


_SEGMENTS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 10)), max_size=6)


@given(st.lists(st.tuples(_SEGMENTS, _SEGMENTS), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_and_scale_of_videos_do_not_matter(rows: list[tuple[list[tuple[int, int]], ...]], order: object) -> None:
    videos = []
    for index, (truth, detected) in enumerate(rows):
        ends = [[(start, start + length) for start, length in one] for one in (truth, detected)]
        videos.append(one_video(ends[0], ends[1], [0.9 - 0.1 * i - 0.01 * index for i in range(len(detected))]))
    before = detection_scores(videos).precision
    order.shuffle(videos)  # type: ignore[attr-defined]
    doubled = [
        video._replace(truth=np.multiply(video.truth, 2), detected=np.multiply(video.detected, 2)) for video in videos
    ]
    np.testing.assert_allclose(detection_scores(doubled).precision, before)
    assert np.isnan(before).all() or ((before >= 0) & (before <= 1)).all()


def test_frames_by_hand() -> None:
    logits = [[2, 1], [-1, -2], [-1, 3], [1, 2]]
    labels = [[1, 0], [0, 0], [1, 0], [0, 0]]
    assert top_one_correct(logits, labels).tolist() == [True, True, False, False]
    assert frame_accuracy(logits, labels) == 0.5
    assert frame_accuracy(logits, labels, background_threshold=2.5) == 0.5
    assert top_one_correct([[0.0], [-1.0]], [[1], [1]]).tolist() == [[True], [False]]


def test_average_precision_of_frames() -> None:
    """Two frames of one score count together: precision 2/3 for both."""
    scores = np.array([[3, 0], [3, 0], [3, 0], [1, 0]])
    labels = np.array([[1, 0], [1, 0], [0, 0], [1, 0]])
    assert class_average_precision(scores, labels).tolist() == pytest.approx([2 / 3 * 2 / 3 + 1 / 3 * 3 / 4, 0])


def test_every_video_counts_once() -> None:
    assert unique_videos(["b", "a", "b", "c", "a"], [1, 1, 1, 0, 1]).tolist() == [0, 1]
    assert unique_videos(["b", "a"], [0, 1]).tolist() == [1]
