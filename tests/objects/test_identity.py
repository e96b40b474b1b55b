"""The greedy assignment of identities against a literal restatement of the paper's algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onlooker.operators.objects.densevoc.identity import assign_identities, frame_numbers


def literal(scores: Any, frame: Any, threshold: float) -> Any:
    """Algorithm 1 as it is written down: zero rows and columns, count again, loop over frames."""
    scores = scores.copy()
    ids = np.zeros(len(scores), np.int64)
    for i in range(len(scores)):
        for j in range(len(scores)):
            if i != j and frame[i] == frame[j]:
                scores[i, j] = 0
    while scores.size and scores.max() >= np.float32(threshold):
        anchor = int((scores >= np.float32(threshold)).sum(1).argmax())
        members = []
        for f in np.unique(frame):
            columns = np.flatnonzero(frame == f)
            best = columns[scores[anchor, columns].argmax()]
            if scores[anchor, best] >= np.float32(threshold):
                members.append(best)
        ids[members] = ids.max() + 1
        scores[members] = 0
        scores[:, members] = 0
    return ids


@given(
    st.integers(0, 10_000), st.lists(st.integers(0, 5), max_size=14), st.sampled_from([0.3, 0.5, 0.7]), st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_is_the_algorithm_as_written(seed: int, frames: list[int], threshold: float, ties: bool) -> None:
    """Frames in any order and of any length; few different scores, so that ties abound, or many."""
    random = np.random.default_rng(seed)
    frame = np.array(frames, np.int64)
    shape = (len(frame), len(frame))
    scores = (random.choice([0.1, 0.3, 0.6, 0.7, 0.9], shape) if ties else random.random(shape)).astype(np.float32)
    found = assign_identities(scores, frame, threshold)
    np.testing.assert_array_equal(found, literal(scores, frame, threshold))
    for identity in range(1, int(found.max(initial=0)) + 1):
        members = frame[found == identity]
        assert 1 <= len(members) == len(set(members.tolist()))


def test_a_detection_without_a_score_of_its_own_is_no_track() -> None:
    """The anchor of most support leaves its own track to the one that scores itself."""
    scores = np.float32([[0.1, 0.9, 0.9], [0.0, 0.0, 0.0], [0.0, 0.0, 0.8]])
    assert assign_identities(scores, 3, 0.5).tolist() == [0, 1, 1]
    assert assign_identities(np.float32([[0.8, 0.0], [0.0, 0.8]]), 2, 0.5).tolist() == [1, 2]


def test_frame_numbers_may_be_counted() -> None:
    assert frame_numbers(6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert frame_numbers(0, 4).tolist() == []
    scores = np.random.default_rng(0).random((6, 6))
    np.testing.assert_array_equal(
        assign_identities(scores, 3, 0.4), assign_identities(scores, frame_numbers(6, 3), 0.4)
    )


@pytest.mark.parametrize(
    ("shape", "frames", "threshold", "told"),
    [((4, 3), 2, 0.5, "square"), ((4, 4), 3, 0.5, "frames"), ((4, 4), 2, 0.0, "above 0"), ((4, 4), 2, -1.0, "above 0")],
)
def test_what_cannot_be_is_told(shape: tuple[int, int], frames: int, threshold: float, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        assign_identities(np.zeros(shape), frames, threshold)
    with pytest.raises(ValueError, match="frame numbers of shape"):
        assign_identities(np.zeros((4, 4)), np.zeros(3), 0.5)


def test_the_longest_clip_of_the_paper() -> None:
    """200 frames of 16 detections, noisy: tracks are whole where scores say so."""
    random = np.random.default_rng(1)
    identity = np.concatenate([random.permutation(16) for _ in range(200)])
    scores = np.where(identity[:, None] == identity, 0.9, 0.1) + random.normal(0, 0.03, (3200, 3200))
    found = assign_identities(scores, 200, 0.5)
    assert len(set(zip(found.tolist(), identity.tolist(), strict=True))) == 16 == found.max()
