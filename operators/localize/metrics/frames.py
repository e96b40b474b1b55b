"""Scores of action segmentation, frame by frame.

Source: the evaluation of UnLoc (ICCV 2023) on COIN; average precision as scikit-learn defines it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["class_average_precision", "frame_accuracy", "top_one_correct", "unique_videos"]

Floats = NDArray[np.float64]


def top_one_correct(logits: ArrayLike, labels: ArrayLike, background_threshold: float = 0.0) -> NDArray[np.bool_]:
    """Whether the best class of every frame is a true one, or none is predicted where none is true.

    Args:
        logits: (..., C). With one class, 0 and more means that it is predicted.
        labels: (..., C), 0 or 1; all 0 is background.
        background_threshold: background is predicted where no logit is above it. With one class it has no effect.

    Returns:
        (...), or (..., 1) with one class.
    """
    scores, true = np.asarray(logits), np.asarray(labels)
    if scores.shape[-1] == 1:
        right: NDArray[np.bool_] = (scores >= 0) == true
        return right
    return _best_is_true(scores, true, background_threshold)


def frame_accuracy(logits: ArrayLike, labels: ArrayLike, background_threshold: float = 0.0) -> float:
    """Part of the frames (n, C) whose best class is true, or that are background and predicted so; see
    `top_one_correct`, but with one class too the threshold counts."""
    return float(_best_is_true(np.asarray(logits), np.asarray(labels), background_threshold).mean())


def _best_is_true(logits: NDArray[Any], labels: NDArray[Any], background_threshold: float) -> NDArray[np.bool_]:
    best = np.take_along_axis(labels, logits.argmax(axis=-1)[..., None], axis=-1)[..., 0] > 0
    background = logits.max(axis=-1) <= background_threshold
    return np.where(background, ~(labels > 0).any(axis=-1), best)


def class_average_precision(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """Average precision of every class over frames: the sum of precision times the step of recall, not interpolated.

    Args:
        scores: (n, C), of any scale.
        labels: (n, C), 0 or 1.

    Returns:
        (C,); 0 for a class that is never true.
    """
    values, true = np.asarray(scores), np.asarray(labels) > 0
    return np.array([_average_precision(values[:, c], true[:, c]) for c in range(values.shape[1])])


def _average_precision(scores: NDArray[Any], labels: NDArray[np.bool_]) -> float:
    if not labels.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    # Frames of equal score are predicted together.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = labels[order].cumsum()[last]
    return float((np.diff(hits, prepend=0) / hits[-1] * (hits / (last + 1))).sum())


def unique_videos(vids: ArrayLike, present: ArrayLike) -> NDArray[np.intp]:
    """Rows of a collected evaluation that count: those that are present, each video once, its first.

    Args:
        vids: (n,) identities.
        present: (n,) 0 for rows that only fill up a batch.

    Returns:
        Indexes in ascending order.
    """
    rows = np.flatnonzero(np.asarray(present))
    _, first = np.unique(np.asarray(vids)[rows], return_index=True)
    return rows[np.sort(first)]
