"""What UnLoc learns to say at every time step: the classes or texts that it belongs to, and how far off they end.

Source: Yan et al., "UnLoc: A Unified Framework for Video Localization Tasks" (ICCV 2023), as its reference assigns
labels; the assignment is that of FCOS and ActionFormer. float32 in the reference's order of operations, because a step
that lies on the edge of a range is inside or outside by its last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onlooker.operators.localize.unloc.sampling import Anchors, Sampling, anchors, level_lengths

__all__ = [
    "BASE_RANGES",
    "PADDING",
    "LabelOptions",
    "Labels",
    "caption_mask",
    "class_labels",
    "frame_labels",
    "moment_labels",
]

PADDING = -1000
"""Start and end of what only fills up a row of segments."""

BASE_RANGES = ((0.0, 4.0), (4.0, 8.0), (8.0, 16.0), (16.0, math.inf))
"""The regression ranges of most released configurations, in level-0 steps."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LabelOptions:
    """How segments are given to the levels of a pyramid.

    Attributes:
        ranges: (low, high) for every level: steps from which the farther end of a segment is low <= distance < high
            away belong to it. In level-0 steps under "linspace" sampling, in frames of the video under "random".
        stride: from one level to the next.
        radius: only steps within this distance of a segment's centre belong to it, in strides of the level; None =
            the whole segment.
        normalize: displacements are in strides of their level.
    """

    ranges: tuple[tuple[float, float], ...] = BASE_RANGES
    stride: int = 2
    radius: float | None = 3.0
    normalize: bool = True

    @property
    def levels(self) -> int:
        """The number of levels."""
        return len(self.ranges)

    def anchors(self, frames: int) -> Anchors:
        """The time steps of a pyramid over T = `frames`."""
        return anchors(frames, self.levels, self.stride)


class Labels(NamedTuple):
    """Targets of the heads; K texts or C classes, N time steps of all levels."""

    positive: NDArray[np.int8]
    """(K, N) or (N, C), 1 where a step belongs to a segment of the text or class."""
    displacements: Floats
    """(K, N, 2), (N, C, 2) or (N, 2): distance back to the start and on to the end. It tells something only where
    `positive` is 1."""


def moment_labels(segments: ArrayLike, sampling: Sampling, options: LabelOptions) -> Labels:
    """Labels of moment retrieval: each text has one moment.

    Args:
        segments: (K, 2) first and last frame of each moment, in frames of the video; `PADDING` for none.
        sampling: which frames the model sees.
        options: the pyramid.

    Returns:
        (K, N) and (K, N, 2). Displacements are negative outside the moment, as in the reference.
    """
    steps = options.anchors(sampling.frames)
    reach, positive = _assign(segments, sampling, steps, options)
    return Labels(positive.astype(np.int8), _scaled(reach, steps, options))


def class_labels(
    segments: ArrayLike,
    classes: ArrayLike,
    num_classes: int,
    sampling: Sampling,
    options: LabelOptions,
    *,
    across_classes: bool = False,
) -> Labels:
    """Labels of temporal localization, and of highlight detection with one class: any number of segments per class.

    Args:
        segments: (M, 2) first and last frame, in frames of the video.
        classes: (M,) in [0, C); -1 fills up and is ignored.
        num_classes: C.
        sampling: which frames the model sees.
        options: the pyramid.
        across_classes: one displacement for all classes, the nearest of any.

    Returns:
        (N, C) and (N, C, 2), or (N, 2) across classes. The start is the nearest one before the step, the end the
        nearest one after it; where segments of a class overlap they may belong to different ones, as in the reference.
        Where there is none, and at most, the distance is F + 1.
    """
    owner = np.asarray(classes, np.int64).reshape(-1)
    if len(owner) and not -1 <= owner.min() <= owner.max() < num_classes:
        raise ValueError(f"classes are 0 .. {num_classes - 1}, or -1 for none; found {owner.min()} .. {owner.max()}")
    steps = options.anchors(sampling.frames)
    reach, positive = _assign(segments, sampling, steps, options)
    nearest = np.full((num_classes, len(steps.times), 2), sampling.total + 1, np.float32)
    labels = np.zeros((len(steps.times), num_classes), np.int8)
    for distances, inside, index in zip(reach, positive, owner, strict=True):
        if index >= 0:
            before = np.where(distances < 0, np.float32(sampling.total + 1), distances)
            nearest[index] = np.minimum(nearest[index], before)
            labels[inside, index] = 1
    found = nearest.min(axis=0) if across_classes else nearest
    scaled = _scaled(found, steps, options)
    return Labels(labels, scaled if across_classes else scaled.swapaxes(0, 1))


def frame_labels(segments: ArrayLike, classes: ArrayLike, num_classes: int, sampling: Sampling) -> NDArray[np.int8]:
    """Labels of action segmentation.

    Args:
        segments: (M, 2) first and last frame, both inclusive, in frames of the video.
        classes: (M,) in [0, C); -1 is background.
        num_classes: C.
        sampling: "random"; which frames the model sees.

    Returns:
        (T, C): one 1 where a frame lies in a segment, that of the last one listed; none for background.
    """
    bounds = np.asarray(segments, np.int64).reshape(-1, 2)
    frames = sampling.start + sampling.stride * np.arange(sampling.frames)
    found = np.full(sampling.frames, -1)
    for (first, last), index in zip(bounds, np.asarray(classes, np.int64).reshape(-1), strict=True):
        found[(first <= frames) & (frames <= last)] = index
    labels: NDArray[np.int8] = (found[:, None] == np.arange(num_classes)).astype(np.int8)
    return labels


def caption_mask(segments: ArrayLike) -> NDArray[np.bool_]:
    """(K,) which segments are there, and not `PADDING`."""
    there: NDArray[np.bool_] = np.asarray(segments).reshape(-1, 2)[:, 0] != PADDING
    return there


def _assign(
    segments: ArrayLike, sampling: Sampling, steps: Anchors, options: LabelOptions
) -> tuple[Floats, NDArray[np.bool_]]:
    """Distances of every step from the ends of every segment (M, N, 2), and whether it belongs to it (M, N)."""
    bounds = np.asarray(segments, np.float32).reshape(-1, 2, 1)
    times = steps.times
    if sampling.strategy == "linspace":
        bounds = bounds * (np.float32(sampling.frames - 1) / np.float32(sampling.total - 1))
    else:
        times = times * np.float32(sampling.stride) + np.float32(sampling.start)
    starts, ends = bounds[:, 0], bounds[:, 1]
    reach = np.stack([times - starts, ends - times], axis=-1)
    low, high = _ranges(sampling.frames, options)
    farther = reach.max(axis=-1)
    positive = (farther >= low) & (farther < high)
    if options.radius is not None:
        centres, radius = (starts + ends) * np.float32(0.5), np.float32(options.radius) * steps.strides
        starts, ends = np.maximum(starts, centres - radius), np.minimum(ends, centres + radius)
    return reach, positive & (times >= starts) & (times <= ends)


def _ranges(frames: int, options: LabelOptions) -> tuple[Floats, Floats]:
    """Low and high end of the regression range of every step, (N,) each."""
    lengths = level_lengths(frames, options.levels, options.stride)
    low, high = np.repeat(np.array(options.ranges, np.float32), lengths, axis=0).T
    return low, high


def _scaled(displacements: Floats, steps: Anchors, options: LabelOptions) -> Floats:
    """Displacements (..., N, 2) in strides of their level, if asked for."""
    return displacements / steps.strides[:, None] if options.normalize else displacements
