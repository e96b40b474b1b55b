"""Where and when a sentence is true in a video (VidSTG, Zhang et al. 2020), as Dense VOC scores it.

Every frame answers with the box whose caption decoder finds the sentence most likely; the frames of the span answer
when. Frame numbers are those of the video; spans are [first, last).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .world import box_iou

__all__ = ["Answer", "Tube", "best_boxes", "grounding_scores", "sample_frames", "score_answer", "span", "trim"]

THRESHOLDS = (0.3, 0.5)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tube:
    """What is true of one sentence."""

    frames: Sequence[int]
    """Frames of the video that are looked at, see `sample_frames`."""
    start: int
    """First frame of the tube."""
    end: int
    """The frame after its last one."""
    boxes: Mapping[int, ArrayLike]
    """Frame -> its box: left, top, right, bottom; for the frames looked at in the tube."""


@dataclass(frozen=True)
class Answer:
    """What was found."""

    start: int
    end: int
    boxes: Mapping[int, ArrayLike]
    """Frame -> its box, left, top, right, bottom; frames without any are left out."""


def sample_frames(start: int, end: int, rate: float, *, fps: float = 5, most: int = 200) -> list[int]:
    """The frames that are looked at: about `fps` a second of a video of `rate` frames a second, at most `most`.

    Raises:
        ValueError: the video has fewer frames a second than are to be looked at.
    """
    if fps > rate:
        raise ValueError(f"{fps:g} frames a second of a video that has {rate:g}")
    ratio = fps / rate
    frames = [start]
    for frame in range(start, end):
        if int(frames[-1] * ratio) < int(frame * ratio):
            frames.append(frame)
    return frames if len(frames) <= most else [frames[j * len(frames) // most] for j in range(most)]


def best_boxes(scores: ArrayLike, likelihood: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    """The most likely box of each frame.

    Args:
        scores: (T, N) of detections by frame, those of slots without one are negative and stand last.
        likelihood: (T, N) of the sentence.

    Returns:
        (T,) the box, -1 where there is none, and its likelihood, -1 where there is none.
    """
    there = (np.asarray(scores) >= 0).sum(axis=1)
    values = np.asarray(likelihood, np.float64)
    # The reference counts the valid scores and takes as many slots from the front.
    values = np.where(np.arange(values.shape[1]) < there[:, None], values, -np.inf)
    values = np.pad(values, ((0, 0), (0, 1)), constant_values=-np.inf)  # so that a frame may have no slots at all
    return np.where(there > 0, values.argmax(axis=1), -1), np.where(there > 0, values.max(axis=1), -1.0)


def trim(likelihood: Sequence[float], enough: float = 1.0) -> tuple[int, int]:
    """Cut frames off both ends as long as the mean rises and the end is less likely than `enough`.

    Returns:
        The first and the last frame that are left. The mean that the far end is judged by begins at frame 0, whatever
        was cut off there, as in the reference.
    """
    values = list(likelihood)
    first, last = 0, len(values) - 1
    while values[first] < enough and first < last and _mean(values[first + 1 :]) > _mean(values[first:]):
        first += 1
    while values[last] < enough and first < last and _mean(values[:last]) > _mean(values[: last + 1]):
        last -= 1
    return first, last


def _mean(values: Sequence[float]) -> float:
    """One after the other: how the sum is rounded decides between equal means."""
    return reduce(add, values, 0.0) / len(values)


def span(frames: ArrayLike, likelihood: Sequence[float], enough: float | None = None) -> tuple[int, int]:
    """First and last frame number of the answer.

    Args:
        frames: (T,) frame numbers; negative ones are padding.
        likelihood: (T,) of the best box of each frame.
        enough: see `trim`; None = all frames.
    """
    numbers = np.asarray(frames)
    if enough is None:
        chosen = numbers[numbers >= 0]
    else:
        first, last = trim(likelihood, enough)
        chosen = numbers[first : last + 1]
    return int(chosen.min()), int(chosen.max())


def score_answer(tube: Tube, answer: Answer) -> dict[str, float]:
    """Scores of one sentence.

    Returns:
        `tiou` of the spans; `viou`, the IoU of the boxes summed over the frames in both spans, by the frames in
        either; `gt_viou`, the mean IoU over the frames of the true tube, which asks only where; and of both whether
        they exceed .3 and .5.
    """
    first, last = max(tube.start, answer.start), min(tube.end, answer.end)
    shared = max(0, last - first)
    union = (tube.end - tube.start) + (answer.end - answer.start) - shared
    either = sum(min(tube.start, answer.start) <= f < max(tube.end, answer.end) for f in tube.frames)
    inside = [f for f in tube.frames if tube.start <= f < tube.end]
    overlap = {f: _overlap(tube.boxes[f], answer.boxes[f]) for f in inside if f in answer.boxes}
    scores = {
        "tiou": shared / union if shared else 0.0,
        "viou": sum(value for f, value in overlap.items() if first <= f < last) / max(either, 1),
        "gt_viou": sum(overlap.values()) / max(len(inside), 1),
    }
    above = {f"{name}@{limit}": float(scores[name] > limit) for name in ("viou", "gt_viou") for limit in THRESHOLDS}
    return scores | above


def grounding_scores(pairs: Sequence[tuple[Tube, Answer]]) -> dict[str, float]:
    """Means over sentences of what `score_answer` gives.

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("no sentences to score")
    scores = [score_answer(*pair) for pair in pairs]
    return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


def _overlap(true: ArrayLike, told: ArrayLike) -> float:
    """IoU of two boxes, left, top, right, bottom."""
    corners = np.array([true, told], np.float64)
    sizes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return float(box_iou(sizes[:1], sizes[1:])[0, 0])
