"""Non-maximum suppression of time segments, soft and hard, as TensorFlow's `non_max_suppression_with_scores` does it.

Sources: Bodla et al., "Soft-NMS" (ICCV 2017); TensorFlow 2's documentation and outputs. With `sigma` > 0 every segment
that is picked multiplies the scores of the others by exp(-IoU^2 / (2 sigma)), and `iou_threshold` has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["NmsOptions", "soft_nms"]

_TINY = np.finfo(np.float32).tiny


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
    iou_with = _Overlaps(bounds[candidates])
    # Clipped, so that no factor underflows to 0, which times -inf would be nan.
    exponent = np.float32(max(-0.5 / options.sigma, -80.0) if options.sigma > 0 else 0.0)
    picked: list[int] = []
    kept: list[np.float32] = []
    while left.size and len(picked) < options.max_output and left[best := int(left.argmax())] > threshold:
        picked.append(best)
        kept.append(left[best])
        iou = iou_with(best)
        if options.sigma > 0:
            left *= np.exp(exponent * iou * iou)
        else:
            left[iou > np.float32(options.iou_threshold)] = -np.inf
        left[best] = -np.inf
    return candidates[np.array(picked, np.intp)], np.array(kept, np.float32)


class _Overlaps:
    """IoU of one of M segments with all of them; 0 where either has no length."""

    def __init__(self, segments: NDArray[np.float32]) -> None:
        """From (M, 2) segments."""
        self._starts = np.minimum(segments[:, 0], segments[:, 1])
        self._ends = np.maximum(segments[:, 0], segments[:, 1])
        self._lengths = self._ends - self._starts

    def __call__(self, one: int) -> NDArray[np.float32]:
        overlap: NDArray[np.float32] = np.minimum(self._ends, self._ends[one])
        overlap -= np.maximum(self._starts, self._starts[one])
        np.maximum(overlap, 0, out=overlap)
        union = self._lengths + self._lengths[one]
        union -= overlap
        # Two segments without length have neither overlap nor union.
        overlap /= np.maximum(union, _TINY, out=union)
        return overlap
