"""Mean average precision of detected segments, by the rules of ActivityNet.

Sources: the evaluation of the ActivityNet challenge (Caba Heilbron et al. 2015), as UnLoc's reference (ICCV 2023) uses
it; the interpolated precision is that of PASCAL VOC 2010 and later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onlooker.operators.localize.metrics.recall import segment_iou

__all__ = ["THRESHOLDS", "DetectionScores", "VideoSegments", "average_precision", "detection_scores"]

THRESHOLDS = np.linspace(0.05, 0.95, 19)
"""Those of UnLoc's reference, with the last bits of `linspace`, which decide where an IoU is a round number."""

Floats = NDArray[np.float64]


class VideoSegments(NamedTuple):
    """What is true and what was detected in one video, or in one pair of video and text with a single class."""

    truth: ArrayLike
    """(G, 2) start and end."""
    truth_classes: ArrayLike
    """(G,)."""
    detected: ArrayLike
    """(P, 2)."""
    scores: ArrayLike
    """(P,)."""
    classes: ArrayLike
    """(P,)."""


@dataclass(frozen=True)
class DetectionScores:
    """Average precision by IoU threshold and class, and the means that are made of it."""

    thresholds: Floats
    """(R,)."""
    precision: Floats
    """(R, C). A class that is detected but never true is nan; one that is neither is 0."""
    present: NDArray[np.bool_]
    """(C,) which classes are true somewhere."""

    def mean(self, thresholds: Iterable[float] | None = None, *, present_only: bool = False) -> float:
        """mAP over some of the thresholds; None = all.

        UnLoc's reference counts classes that are neither true nor detected as 0. `present_only` leaves them out.

        Raises:
            ValueError: a threshold was not evaluated.
        """
        rows = range(len(self.thresholds)) if thresholds is None else [self._row(one) for one in thresholds]
        chosen = self.precision[:, self.present] if present_only else self.precision
        return float(np.mean([_mean(chosen[row]) for row in rows]))

    def per_class(self) -> Floats:
        """(C,) average precision over all thresholds."""
        return np.array([_mean(column) for column in self.precision.T])

    def _row(self, threshold: float) -> int:
        (found,) = np.nonzero(np.isclose(self.thresholds, threshold, rtol=0, atol=1e-6))
        if not len(found):
            raise ValueError(f"IoU {threshold} is none of {', '.join(f'{t:.2f}' for t in self.thresholds)}")
        return int(found[0])


def detection_scores(
    videos: Sequence[VideoSegments], num_classes: int = 1, thresholds: ArrayLike = THRESHOLDS
) -> DetectionScores:
    """Average precision of the detections of all videos together, for each class.

    Args:
        videos: truth and detections, in one unit of time.
        num_classes: C; classes are 0 .. C - 1.
        thresholds: of the IoU.
    """
    limits = np.asarray(thresholds, np.float64)
    precision = np.zeros((len(limits), num_classes))
    present = np.zeros(num_classes, np.bool_)
    for index in range(num_classes):
        of_class = [_one_class(video, index) for video in videos]
        present[index] = any(len(truth) for truth, _, _ in of_class)
        precision[:, index] = average_precision(of_class, limits)
    return DetectionScores(limits, precision, present)


def average_precision(videos: Sequence[tuple[Floats, Floats, Floats]], thresholds: Floats) -> Floats:
    """Average precision of one class, (R,).

    Args:
        videos: truth (G, 2), detected segments (P, 2) and their scores (P,) of every video.
        thresholds: (R,) of the IoU.

    Returns:
        nan where something was detected and nothing is true; 0 where nothing is detected.
    """
    values = np.concatenate([scores for _, _, scores in videos]) if videos else np.zeros(0)
    if not len(values):
        return np.zeros(len(thresholds))
    total = sum(len(truth) for truth, _, _ in videos)
    if not total:
        return np.full(len(thresholds), np.nan)
    order = np.argsort(-values, kind="stable")
    hits = np.concatenate([_hits(*video, thresholds) for video in videos], axis=1)[:, order].cumsum(axis=1)
    precision, recall = hits / np.arange(1, len(values) + 1), hits / total
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    areas: Floats = (np.diff(recall, axis=1, prepend=0.0) * envelope).sum(axis=1)
    return areas


def _hits(truth: Floats, detected: Floats, scores: Floats, thresholds: Floats) -> NDArray[np.bool_]:
    """(R, P) which detections of a video are right: by descending score, each takes the true segment that it overlaps
    most of those still free."""
    found = np.zeros((len(thresholds), len(detected)), np.bool_)
    if not len(truth):
        return found
    # Of equal overlaps the reference takes the last.
    iou = segment_iou(detected, truth[::-1])
    free = np.ones((len(thresholds), len(truth)), np.bool_)
    for row in np.argsort(-scores, kind="stable"):
        possible = free & (iou[row] >= thresholds[:, None])
        right = found[:, row] = possible.any(axis=1)
        taken = np.where(possible, iou[row], -1.0).argmax(axis=1)
        free[right, taken[right]] = False
    return found


def _one_class(video: VideoSegments, index: int) -> tuple[Floats, Floats, Floats]:
    true, detected = np.asarray(video.truth_classes) == index, np.asarray(video.classes) == index
    return (
        np.asarray(video.truth, np.float64).reshape(-1, 2)[true],
        np.asarray(video.detected, np.float64).reshape(-1, 2)[detected],
        np.asarray(video.scores, np.float64).reshape(-1)[detected],
    )


def _mean(values: Floats) -> float:
    """Mean of what is not nan; nan without any."""
    told = values[~np.isnan(values)]
    return float(told.mean()) if len(told) else float("nan")
