"""What the pooled outputs of windows say: segments by score, and a curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..packets import FloatArray
from .live_segments import Found
from .unloc.decoding import decode_moments, frame_classes, probabilities, suppress_moments
from .unloc.nms import NmsOptions
from .unloc.sampling import Sampling
from .windows import Pool, Window, WindowPlan

# An anchor speaks when the windows' trust in it comes to this: one at the edge of what was seen has little to go by.
_TRUSTED = np.float32(0.5)

__all__ = ["found_runs", "found_segments", "slot_scores"]


def found_segments(pool: Pool, window: Window, plan: WindowPlan, options: NmsOptions) -> list[Found]:
    """Segments of one query, decoded and suppressed as UnLoc does it with a clip.

    Args:
        pool: of the query, after `window`.
        window: the newest one.
        plan: the geometry.
        options: of the suppression; its `score_threshold` is the least score that is of use.

    Returns:
        By descending score, in seconds of media time, within what the window shows.
    """
    sampling = Sampling("random", plan.frames, window.filled, offset=0)
    scores = probabilities(pool.logits)
    # What is below the threshold is never picked and lowers nothing: without it the rest comes out the same.
    known = (pool.weights >= _TRUSTED) & (scores > np.float32(options.score_threshold))
    decoded = decode_moments(scores[None], pool.boxes[None], known, plan.steps, sampling)
    (left,) = suppress_moments(decoded, options)
    return [
        _in_seconds(float(start), float(end), float(score), window, plan)
        for (start, end), score in zip(left.segments, left.scores, strict=True)
    ]


def found_runs(pools: Sequence[Pool], window: Window, plan: WindowPlan) -> list[list[Found]]:
    """Segments of classes that share the frames out among them, from the logits of a linear head: action segmentation.

    A frame belongs to the class with the highest logit, or to none if no logit is above 0; frames that follow each
    other and belong to one class are a segment, whose score is their mean probability.

    Returns:
        One list a class, by descending score.
    """
    known = [np.where(pool.weights >= _TRUSTED, pool.logits, -np.inf) for pool in pools]
    logits = np.stack(known, axis=1)[: window.filled].astype(np.float32)  # (filled, C)
    classes = frame_classes(logits)
    edges = [0, *(np.flatnonzero(np.diff(classes)) + 1).tolist(), window.filled]
    found: list[list[Found]] = [[] for _ in pools]
    for start, end in zip(edges, edges[1:], strict=False):
        if (number := int(classes[start])) >= 0:
            score = float(probabilities(logits[start:end, number]).mean())
            found[number].append(_in_seconds(start, end, score, window, plan))
    return [sorted(runs, key=lambda run: -run.score) for runs in found]


def slot_scores(pool: Pool, start: int, end: int, plan: WindowPlan) -> FloatArray:
    """(end - start,) float32 score of each slot of the window: the highest probability of an anchor that covers it."""
    curve, first = np.zeros(end - start, np.float32), 0
    slots = np.arange(start, end)
    for level, length in enumerate(plan.lengths):
        covering = first + np.minimum(slots // plan.stride**level, length - 1)
        known = np.where(pool.weights[covering] > 0, probabilities(pool.logits[covering]), np.float32(0))
        curve = np.maximum(curve, known)
        first += length
    return curve


def _in_seconds(start: float, end: float, score: float, window: Window, plan: WindowPlan) -> Found:
    return Found(window.seconds(start, plan.fps), window.seconds(end, plan.fps), score)
