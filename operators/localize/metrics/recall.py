"""Recall of moment retrieval: is a moment among the best predictions?

Source: the evaluation of UnLoc (ICCV 2023) on Charades-STA and ActivityNet Captions, where every text has one moment.
With several moments, one that is met is enough, as the public evaluator of QVHighlights (Lei et al. 2021) has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["recall_at", "segment_iou"]


def segment_iou(first: ArrayLike, second: ArrayLike, epsilon: float = 0.0) -> NDArray[np.floating]:
    """IoU of every segment with every other.

    Args:
        first: (n, 2) start and end, in any unit; one that ends before it starts overlaps nothing.
        second: (m, 2) in the same unit.
        epsilon: added to the union.

    Returns:
        (n, m), in the precision of the arguments.
    """
    a, b = np.asarray(first).reshape(-1, 1, 2), np.asarray(second).reshape(1, -1, 2)
    overlap = np.maximum(np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0]), 0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - overlap + epsilon
    iou: NDArray[np.floating] = np.divide(overlap, union, out=np.zeros_like(overlap * 1.0), where=overlap > 0)
    return iou


def recall_at(
    truth: Sequence[ArrayLike],
    predicted: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    ranks: Sequence[int] = (1, 5),
    thresholds: Sequence[float] = (0.5, 0.7),
) -> dict[tuple[int, float], float]:
    """Part of the texts for which one of the `rank` best predictions overlaps a moment by `threshold` or more.

    Args:
        truth: for every text its moments (G, 2); texts without any do not count.
        predicted: for every text (P, 2); without any it is a miss.
        scores: for every text (P,); of equal ones the first comes first.
        ranks: numbers of predictions that are looked at.
        thresholds: of the IoU.

    Returns:
        (rank, threshold) -> recall in [0, 1]; nan if no text has a moment.
    """
    hits = dict.fromkeys([(rank, threshold) for rank in ranks for threshold in thresholds], 0)
    texts = 0
    for moments, segments, values in zip(truth, predicted, scores, strict=True):
        if np.size(moments) == 0:
            continue
        texts += 1
        order = np.argsort(-np.asarray(values), kind="stable")
        best = segment_iou(np.asarray(segments).reshape(-1, 2)[order], moments).max(axis=1)
        for rank, threshold in hits:
            hits[rank, threshold] += bool((best[:rank] >= threshold).any())
    return {key: count / texts if texts else float("nan") for key, count in hits.items()}
