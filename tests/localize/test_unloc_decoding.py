"""Decoding of head outputs: the inverse of label assignment, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.localize.unloc.decoding import (
    decode_detections,
    frame_classes,
    probabilities,
    suppress_detections,
    to_segments,
)
from onlooker.operators.localize.unloc.sampling import Sampling, anchors, input_mask
from onlooker.training.localize_labels import LabelOptions, moment_labels

EVERYTHING = LabelOptions(((0.0, np.inf),) * 3, stride=2, radius=None)
"""Every step inside a moment is positive, at every level."""


@given(
    st.sampled_from(["linspace", "random"]),
    st.integers(16, 400),
    st.integers(1, 4),
    st.tuples(st.integers(0, 400), st.integers(0, 400)),
)
def test_decoded_labels_are_the_segments(strategy: str, total: int, stride: int, ends: tuple[int, int]) -> None:
    sampling = Sampling(strategy, 16, total, stride)  # type: ignore[arg-type]
    segment = np.sort(np.minimum(ends, total))
    labels = moment_labels([segment], sampling, EVERYTHING)
    found = to_segments(labels.displacements, EVERYTHING.anchors(16), sampling, 0.5)
    positive = labels.positive.astype(bool)
    expected = np.broadcast_to(segment * 0.5, found[positive].shape)
    np.testing.assert_allclose(found[positive], expected, atol=1e-3)


def test_ends_are_cut_at_the_video_and_nothing_else_is() -> None:
    steps = anchors(4, 1)
    found = to_segments(np.array([[9, 9], [0, 0], [-9, 0], [0, 1]], np.float32), steps, Sampling("random", 4, 4))
    assert found.tolist() == [[0, 4], [1, 1], [11, 2], [3, 4]]


def test_shared_displacements_serve_all_classes() -> None:
    steps, sampling = anchors(4, 2), Sampling("linspace", 4, 40)
    rng = np.random.default_rng(0)
    scores, shared = rng.random((6, 3), np.float32), rng.random((6, 2), np.float32)
    mask = np.array([1, 1, 0, 1, 1, 1], np.bool_)
    found = decode_detections(scores, shared, mask, steps, sampling, score_threshold=0.2)
    each = decode_detections(scores, np.repeat(shared[:, None], 3, 1), mask, steps, sampling, score_threshold=0.2)
    assert all((one == other).all() for one, other in zip(found, each, strict=True))
    assert len(found.scores) == (scores[mask] >= 0.2).sum()


def test_suppression_by_class_keeps_what_another_class_would_remove() -> None:
    steps, sampling = anchors(2, 1), Sampling("random", 2, 10, 5)
    found = decode_detections(
        np.full((2, 2), 0.5, np.float32), np.full((2, 2, 2), 50, np.float32), None, steps, sampling
    )
    assert len(suppress_detections(found).scores) == 4
    by_class = suppress_detections(found, per_class=True)
    assert by_class.classes.tolist() == [0, 0, 1, 1]
    assert by_class.scores[0] == by_class.scores[2] > by_class.scores[1]
    nothing = found.take(np.zeros(4, np.bool_))
    assert suppress_detections(nothing, per_class=True).segments.shape == (0, 2)


def test_short_clips_repeat_and_say_so() -> None:
    sampling = Sampling("random", 8, 5)
    assert sampling.indexes().tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert input_mask(sampling, anchors(8, 2)).tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0]
    assert input_mask(Sampling("linspace", 8, 5), anchors(8, 2)).all()
    assert Sampling("random", 8, 30, 2).indexes()[0] == 7
    assert Sampling("random", 8, 30, 2, offset=3).indexes()[0] == 3


def test_frames_without_a_logit_above_the_threshold_are_background() -> None:
    logits = np.array([[1, 2], [0, -1], [-3, 0.5]], np.float32)
    assert frame_classes(logits).tolist() == [1, -1, 1]
    assert frame_classes(logits, 0.5).tolist() == [1, -1, -1]


def test_probabilities_do_not_overflow() -> None:
    with np.errstate(over="raise"):
        assert probabilities(np.array([-1000, 0, 1000], np.float32)).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"strategy": "uniform"}, "linspace or random"),
        ({"normalizer": "length"}, "none, duration or sampled_span"),
        ({"total": 0}, "at least 1"),
        ({"frames": 1}, "at least 2 frames"),
    ],
)
def test_wrong_samplings_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Sampling(**({"strategy": "linspace", "frames": 4, "total": 9} | given))  # type: ignore[arg-type]
