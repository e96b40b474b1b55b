"""From the outputs of UnLoc's heads to segments in seconds, per task.

Source: Yan et al., "UnLoc" (ICCV 2023), as its reference post-processes; float32 in the reference's order of
operations. Nothing here changes its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onlooker.operators.localize.unloc.nms import NmsOptions, soft_nms
from onlooker.operators.localize.unloc.sampling import Anchors, Sampling

__all__ = [
    "Detections",
    "Moments",
    "decode_detections",
    "decode_moments",
    "frame_classes",
    "probabilities",
    "suppress_detections",
    "suppress_moments",
    "to_segments",
]

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Detections(NamedTuple):
    """Segments of one video with their classes; each array has n rows."""

    classes: NDArray[np.int64]
    """(n,)."""
    scores: Floats
    """(n,) probabilities, after suppression decayed ones."""
    segments: Floats
    """(n, 2) start and end in seconds. The end may lie before the start, and the start behind the video."""

    def take(self, rows: NDArray[np.intp | np.bool_]) -> Detections:
        """Some of them, by index or mask."""
        return Detections(self.classes[rows], self.scores[rows], self.segments[rows])


class Moments(NamedTuple):
    """Segments of one text in one video."""

    scores: Floats
    """(n,) probabilities, after suppression decayed ones."""
    segments: Floats
    """(n, 2) start and end in seconds, as in `Detections`."""


def probabilities(logits: Floats) -> Floats:
    """Sigmoid in float32, without overflow."""
    decay = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(np.float32)


def to_segments(displacements: Floats, steps: Anchors, sampling: Sampling, seconds_per_frame: float = 1.0) -> Floats:
    """Segments that displacements stand for.

    Args:
        displacements: (..., N, 2) distances back to the start and on to the end, in strides of their level, >= 0.
        steps: the N anchors.
        sampling: which frames of the video they stand for.
        seconds_per_frame: of the frames that `sampling` counts; 1.0 gives frames instead of seconds.

    Returns:
        (..., N, 2) float32. Starts are at least 0, ends at most the length of the video; nothing else is clipped.
    """
    offsets = displacements * (np.array([-1, 1], np.float32) * steps.strides[:, None])
    found = sampling.frame_positions(steps.times[:, None], offsets)
    found[..., 0] = np.maximum(found[..., 0], np.float32(0))
    found[..., 1] = np.minimum(found[..., 1], np.float32(sampling.total))
    return found * np.float32(seconds_per_frame)


def decode_detections(
    scores: Floats,
    displacements: Floats,
    mask: Mask | None,
    steps: Anchors,
    sampling: Sampling,
    *,
    seconds_per_frame: float = 1.0,
    score_threshold: float = 0.001,
) -> Detections:
    """All segments of temporal localization and highlight detection, before suppression.

    Args:
        scores: (N, C) probabilities; those of several prompts are averaged before, like the displacements.
        displacements: (N, C, 2), or (N, 1, 2) or (N, 2) where all classes share them.
        mask: (N,) steps that count; None = all.
        steps: the N anchors.
        sampling: which frames of the video they stand for.
        seconds_per_frame: of the frames that `sampling` counts.
        score_threshold: lower scores are left out.

    Returns:
        Detections in the order of steps, then classes.
    """
    per_class = displacements[:, None] if displacements.ndim == 2 else displacements
    found = np.swapaxes(to_segments(np.swapaxes(per_class, 0, 1), steps, sampling, seconds_per_frame), 0, 1)
    chosen = scores >= score_threshold
    if mask is not None:
        chosen &= mask[:, None]
    found = np.broadcast_to(found, (*scores.shape, 2))
    return Detections(np.nonzero(chosen)[1], scores[chosen], found[chosen])


def suppress_detections(found: Detections, options: NmsOptions | None = None, *, per_class: bool = False) -> Detections:
    """Detections left by non-maximum suppression: one over all classes, as UnLoc reports it, or one for each class.

    Returns:
        By descending score; `per_class`, class by class and in each by descending score.
    """
    if not per_class:
        return _suppress_detections(found, options)
    left = [_suppress_detections(found.take(found.classes == c), options) for c in np.unique(found.classes)]
    return Detections(*map(np.concatenate, zip(*left, strict=True))) if left else found


def _suppress_detections(found: Detections, options: NmsOptions | None) -> Detections:
    chosen, scores = soft_nms(found.segments, found.scores, options)
    return found.take(chosen)._replace(scores=scores)


def decode_moments(
    scores: Floats,
    displacements: Floats,
    mask: Mask | None,
    steps: Anchors,
    sampling: Sampling,
    *,
    seconds_per_frame: float = 1.0,
) -> list[Moments]:
    """All segments of moment retrieval, one entry per text, before suppression.

    Args:
        scores: (K, N) probabilities; no threshold applies.
        displacements: (K, N, 2).
        mask: (N,) steps that count; None = all.
        steps: the N anchors.
        sampling: which frames of the video they stand for.
        seconds_per_frame: of the frames that `sampling` counts.
    """
    found = to_segments(displacements, steps, sampling, seconds_per_frame)
    if mask is not None:
        scores, found = scores[:, mask], found[:, mask]
    return [Moments(*one) for one in zip(scores, found, strict=True)]


def suppress_moments(found: Sequence[Moments], options: NmsOptions | None = None) -> list[Moments]:
    """The moments of every text that non-maximum suppression leaves, by descending score."""
    return [_suppress_moments(one, options) for one in found]


def _suppress_moments(found: Moments, options: NmsOptions | None) -> Moments:
    chosen, scores = soft_nms(found.segments, found.scores, options)
    return Moments(scores, found.segments[chosen])


def frame_classes(logits: Floats, background_threshold: float = 0.0) -> NDArray[np.int64]:
    """The class of every frame in action segmentation, (T,); -1 = background: no logit is above the threshold.

    Args:
        logits: (T, C).
        background_threshold: on the logit, not the probability.
    """
    return np.where(logits.max(axis=-1) <= background_threshold, -1, logits.argmax(axis=-1))
