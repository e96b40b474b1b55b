"""Identities out of association scores: the greedy assignment of Dense VOC.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), algorithm 1, as its reference
computes it. Only scores decide: neither boxes nor motion nor time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["assign_identities", "frame_numbers"]

Array = npt.NDArray[Any]


def frame_numbers(detections: int, frames: int) -> Array:
    """The frame (M,) int64 of each of M detections, every frame having as many, one frame after the other.

    Raises:
        ValueError: M is no multiple of `frames`.
    """
    if frames < 1 or detections % frames:
        raise ValueError(f"{detections} detections cannot be {frames} frames of equally many")
    return np.arange(detections) // max(1, detections // frames)


def assign_identities(scores: Array, frames: int | Array, threshold: float) -> npt.NDArray[np.int64]:
    """Group detections into tracks, at most one detection of a frame in each.

    The detection with the most scores of at least `threshold` claims, in every frame, the detection that it scores
    best; then the next one does among those that are left. A detection joins its own track only if its own score,
    the diagonal, is high enough. Ties go to the lowest index.

    Args:
        scores: (M, M) float, how likely row and column are the same object; rows claim columns. Read as float32.
        frames: frame number (M,) int of every detection, in any order; or how many frames of M / frames detections
            each follow one another.
        threshold: lowest score that associates, above 0.

    Returns:
        (M,) identities 1, 2, ... in the order of assignment, that is by the number of high scores and not by time;
        0 = none. Costs O(M^2) at most, for all tracks together.

    Raises:
        ValueError: the shapes do not fit, or the threshold is not above 0.
    """
    scores = np.asarray(scores, np.float32)
    count = len(scores)
    if scores.shape != (count, count):
        raise ValueError(f"scores {scores.shape} must be a square")
    if not threshold > 0:
        raise ValueError(f"threshold {threshold} must be above 0")
    frame = frame_numbers(count, int(frames)) if np.ndim(frames) == 0 else np.asarray(frames)
    if frame.shape != (count,):
        raise ValueError(f"{count} detections have frame numbers of shape {frame.shape}")
    identities = np.zeros(count, np.int64)
    if not count:
        return identities
    high = scores >= np.float32(threshold)
    rivals = frame[:, None] == frame
    np.fill_diagonal(rivals, False)
    high &= ~rivals
    support = high.sum(1)
    # Each pass clears rows and columns of its members for good, so `support` is kept by what was cleared.
    identity = 0
    while support[anchor := int(support.argmax())]:
        identity += 1
        members = _best_of_each_frame(scores[anchor], np.flatnonzero(high[anchor]), frame)
        identities[members] = identity
        high[members] = False
        support -= high[:, members].sum(1)
        support[members] = 0
        high[:, members] = False
    return identities


def _best_of_each_frame(row: Array, candidates: Array, frame: Array) -> Array:
    """Of the candidates, indices in increasing order, the one of each frame with the highest score in `row`."""
    ordered = candidates[np.lexsort((candidates, -row[candidates], frame[candidates]))]
    first = np.ones(len(ordered), np.bool_)
    first[1:] = frame[ordered[1:]] != frame[ordered[:-1]]
    members: Array = ordered[first]
    return members
