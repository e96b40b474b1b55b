"""Non-maximum suppression of time segments, soft and hard, as TensorFlow's `non_max_suppression_with_scores` does it.

Sources: Bodla et al., "Soft-NMS" (ICCV 2017); TensorFlow 2's documentation and outputs. With `sigma` > 0 every segment
that is picked multiplies the scores of the others by exp(-IoU^2 / (2 sigma)), and `iou_threshold` has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["NmsOptions", "soft_nms"]


@dataclass(frozen=True)
class NmsOptions:
    """The defaults are those of all released UnLoc configurations."""

    sigma: float = 0.3
    """Width of the decay; 0 = hard suppression."""
    score_threshold: float = 0.001
    """Only segments whose score, decayed or not, is above it are picked."""
    iou_threshold: float = 0.5
    """Hard suppression removes what overlaps a picked segment by more than this."""
    max_output: int = 100
    """At most so many segments are picked."""


def soft_nms(
    segments: ArrayLike, scores: ArrayLike, options: NmsOptions | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pick segments by score, each lowering the scores of those that overlap it.

    Args:
        segments: (M, 2) start and end, in any unit. One that ends before it starts counts as its mirror image, one
            without length overlaps nothing.
        scores: (M,).
        options: how; None = the defaults.

    Returns:
        Indexes of the picked segments in the order in which they were picked, and their decayed scores, which
        descend. Of equal scores the lower index comes first.
    """
    options = options or NmsOptions()
    threshold = np.float32(options.score_threshold)
    bounds, given = np.asarray(segments, np.float32).reshape(-1, 2), np.asarray(scores, np.float32).reshape(-1)
    if len(bounds) != len(given):
        raise ValueError(f"{len(bounds)} segments with {len(given)} scores: every segment needs one")
    candidates = np.flatnonzero(given > threshold)
    left = given[candidates]
    starts, ends = bounds[candidates].min(axis=1), bounds[candidates].max(axis=1)
    picked: list[int] = []
    kept: list[np.float32] = []
    while left.size and len(picked) < options.max_output and left[best := int(left.argmax())] > threshold:
        picked.append(best)
        kept.append(left[best])
        left[best] = -np.inf
        iou = _iou_with(best, starts, ends)
        if options.sigma > 0:
            decay = np.exp(np.float32(-0.5 / options.sigma) * iou * iou)
            np.multiply(left, decay, out=left, where=left > threshold)
        else:
            left[iou > np.float32(options.iou_threshold)] = -np.inf
    return candidates[np.array(picked, np.intp)], np.array(kept, np.float32)


def _iou_with(one: int, starts: NDArray[np.float32], ends: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M,) IoU of segment `one` with all; 0 where either has no length."""
    lengths = ends - starts
    overlap = np.maximum(np.minimum(ends, ends[one]) - np.maximum(starts, starts[one]), np.float32(0))
    union = lengths + lengths[one] - overlap
    has_length = (lengths > 0) & (lengths[one] > 0)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=has_length)
