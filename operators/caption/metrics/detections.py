"""How well predicted intervals meet the true ones: IoU, precision and recall at thresholds.

Source: the evaluation of Streaming Dense Video Captioning (arXiv 2404.01297), which follows the ActivityNet Captions
evaluator (Krishna et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["IOU_THRESHOLDS", "Detections", "f1_score", "interval_iou", "score_detections", "segments_array"]

IOU_THRESHOLDS = (0.3, 0.5, 0.7, 0.9)

_EPSILON = 1e-8
"""Added to the union. It pushes exact ratios just below a threshold (3/10 is not >= 0.3), in whatever unit time is."""


def segments_array(segments: ArrayLike) -> NDArray[np.float64]:
    """Intervals as float64 (n, 2); an empty list becomes (0, 2).

    Raises:
        ValueError: the shape is not (n, 2), or a time is not finite.
    """
    array = np.asarray(segments, dtype=np.float64)
    array = array.reshape(0, 2) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise ValueError(f"segments are (n, 2) finite times; got shape {array.shape}: {str(segments)[:80]}")
    return array


def interval_iou(predicted: ArrayLike, truth: ArrayLike, *, sort_ends: bool = True) -> NDArray[np.float64]:
    """Temporal IoU of every true with every predicted interval.

    Args:
        predicted: (P, 2) start and end, in any unit.
        truth: (G, 2) in the same unit.
        sort_ends: an interval that ends before it starts is turned round first.

    Returns:
        (G, P) float64 in [0, 1).
    """
    first, second = segments_array(predicted)[None, :, :], segments_array(truth)[:, None, :]
    if sort_ends:
        first, second = np.sort(first, axis=-1), np.sort(second, axis=-1)
    (start_1, end_1), (start_2, end_2) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)  # (1, P), (G, 1)
    intersection = np.maximum(0.0, np.minimum(end_1, end_2) - np.maximum(start_1, start_2))
    hull = np.maximum(end_1, end_2) - np.minimum(start_1, start_2)
    # Summed from left to right: another order differs in the last bit, which decides at a threshold.
    union = np.minimum(hull, end_1 - start_1 + end_2 - start_2)
    iou: NDArray[np.float64] = intersection / (union + _EPSILON)
    return iou


@dataclass(frozen=True)
class Detections:
    """Precision and recall of one video at every threshold, and the IoU (G of the split, max(P, 1)) per split."""

    precision: tuple[float, ...]
    recall: tuple[float, ...]
    iou: dict[int, NDArray[np.float64]]


def score_detections(
    predicted: ArrayLike,
    truth: ArrayLike,
    splits: Sequence[int] | NDArray[np.int64] | None = None,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    *,
    sort_ends: bool = True,
) -> Detections:
    """Precision and recall with the best of several annotators ("splits").

    At a threshold, precision is the share of predictions whose IoU with some true interval of the split is above it,
    recall the share of the split's intervals that some prediction meets so. Of the splits the best counts, for
    precision and recall apart and at each threshold apart. Without predictions precision is 0.

    Args:
        predicted: (P, 2).
        truth: (G, 2), G > 0.
        splits: (G,) annotator of each true interval; one annotator if not given.
        thresholds: IoU thresholds; an interval must be *above*.
        sort_ends: see ``interval_iou``.

    Raises:
        ValueError: no true interval, or not one split for each.
    """
    intervals, given = segments_array(truth), segments_array(predicted)
    labels = np.ones(len(intervals), np.int64) if splits is None else np.asarray(splits, np.int64)
    if len(intervals) == 0 or labels.shape != (len(intervals),):
        raise ValueError(f"{len(intervals)} true intervals with splits of shape {labels.shape}: need one each, any")
    precision, recall = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    matrices = {}
    for split in np.unique(labels):
        iou = np.zeros((int((labels == split).sum()), max(len(given), 1)))
        iou[:, : len(given)] = interval_iou(given, intervals[labels == split], sort_ends=sort_ends)
        above = iou > np.asarray(thresholds)[:, None, None]  # thresholds, G, P
        precision = np.maximum(precision, above.any(1).sum(1) / max(len(given), 1))
        recall = np.maximum(recall, above.any(2).mean(1))
        matrices[int(split)] = iou
    return Detections(tuple(precision.tolist()), tuple(recall.tolist()), matrices)


def f1_score(precision: float, recall: float) -> float:
    """Harmonic mean; 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
