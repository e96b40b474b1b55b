"""Which frames of a video UnLoc looks at, and where its time steps lie in the video.

Source: Yan et al., "UnLoc: A Unified Framework for Video Localization Tasks" (ICCV 2023), as its reference samples.
All positions are float32, in the reference's order of operations, so that labels at the edge of a range agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onlooker.operators.localize.unloc.config import level_lengths

__all__ = ["Anchors", "Normalizer", "Sampling", "Strategy", "anchors", "input_mask", "level_lengths"]

Strategy = Literal["linspace", "random"]
Normalizer = Literal["none", "duration", "sampled_span"]


@dataclass(frozen=True)
class Sampling:
    """How T frames are taken out of a video.

    Attributes:
        strategy: "linspace" spreads the frames over the whole video, however long it is. "random" takes them `stride`
            apart; a video that is too short repeats, and `input_mask` says so.
        frames: T, the length of level 0.
        total: F, the number of frames of the video, at the rate that `stride` counts in.
        stride: distance of frames under "random".
        offset: first frame under "random"; None = the clip in the middle, as at test time.
        normalizer: what displacements are parts of under "random": nothing (they are frames), the duration of the
            video, or the span of the clip. Under "linspace" they always are level-0 steps.
    """

    strategy: Strategy
    frames: int
    total: int
    stride: int = 1
    offset: int | None = None
    normalizer: Normalizer = "none"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.strategy not in ("linspace", "random"):
            raise ValueError(f"the sampling strategy is linspace or random, not {self.strategy!r}")
        if self.normalizer not in ("none", "duration", "sampled_span"):
            raise ValueError(f"displacements are normalised by none, duration or sampled_span, not {self.normalizer!r}")
        if min(self.frames, self.total, self.stride) < 1 or (self.offset is not None and self.offset < 0):
            raise ValueError(f"frames, total and stride are at least 1 and offset at least 0: {self}")
        if self.strategy == "linspace" and self.frames < 2:
            raise ValueError("linspace sampling needs at least 2 frames")

    @property
    def start(self) -> int:
        """The first frame looked at."""
        if self.strategy == "linspace":
            return 0
        if self.offset is not None:
            return self.offset
        return max(0, (self.total - self.frames * self.stride) // 2)

    def indexes(self) -> NDArray[np.int64]:
        """The frames looked at, (T,), each in [0, F)."""
        if self.strategy == "linspace":
            return np.linspace(0, self.total - 1, self.frames).astype(np.int64)
        return (self.start + self.stride * np.arange(self.frames)) % self.total

    def frame_positions(self, times: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Positions in the video of what is `offsets` away from anchors at `times`.

        Args:
            times: level-0 steps of the anchors, any shape.
            offsets: signed distances, times the stride of their level; of a shape that `times` broadcasts with.

        Returns:
            float32 frames of the video, not clipped.
        """
        if self.strategy == "linspace":
            return (times + offsets) * np.float32(self.total - 1) / np.float32(self.frames - 1)
        unit = {"none": 1, "duration": self.total, "sampled_span": self.frames * self.stride}[self.normalizer]
        return times * np.float32(self.stride) + offsets * np.float32(unit) + np.float32(self.start)


class Anchors(NamedTuple):
    """The time steps of all pyramid levels, fine to coarse."""

    times: NDArray[np.float32]
    """(N,) level-0 steps."""
    strides: NDArray[np.float32]
    """(N,) level-0 steps between neighbours of the same level, the unit of displacements."""


def anchors(frames: int, levels: int, stride: int = 2) -> Anchors:
    """The anchors of a pyramid over T = `frames` steps; step i of level l stands at i * stride^l."""
    lengths = level_lengths(frames, levels, stride)
    times = [np.arange(length, dtype=np.float32) * stride**level for level, length in enumerate(lengths)]
    strides = [np.full(length, stride**level, np.float32) for level, length in enumerate(lengths)]
    return Anchors(np.concatenate(times), np.concatenate(strides))


def input_mask(sampling: Sampling, steps: Anchors) -> NDArray[np.bool_]:
    """(N,) which steps show a frame that no earlier step showed; under "linspace" all of them, as in the reference."""
    if sampling.strategy == "linspace":
        return np.ones(len(steps.times), np.bool_)
    return steps.times * sampling.stride < sampling.total
