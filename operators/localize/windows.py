"""Windows of fixed length over a stream without end, and what overlapping windows say about the same instant.

UnLoc (Yan et al., ICCV 2023) looks at one clip of T frames. Here a clip is the last T frames of a stream, and a new one
follows every H frames. Time is counted in *slots* of 1 / fps seconds since the stream began; a slot holds the first
frame that falls into it, or, if none does, the frame before it, which is still what was seen last. H is a multiple of
the coarsest stride, so that the anchors of all windows lie on one grid, level by level, and can be averaged.

Windows at the beginning of a stream begin at slot 0 and hold fewer frames than T: the rest of them is zero and masked.
Each of them sees all that the one before saw, so it takes its place. A stream of at most T frames therefore ends with
exactly what the model says about it as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..packets import FloatArray
from .unloc.sampling import Anchors, anchors, level_lengths

__all__ = ["Pool", "Ring", "Window", "WindowPlan"]

# Frames that ought to stand at k / fps may come a little earlier, by the rounding of timestamps.
_EARLY = 1e-3
# Weight of a start that a window does not show, beside one that another has shown.
_UNSEEN = np.float32(1e-3)

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class WindowPlan:
    """The geometry of windows.

    Attributes:
        frames: T, slots of a window.
        levels: levels of the model's pyramid.
        stride: between levels.
        hop: H, slots from one window to the next.
        margin: slots at either end of a window in which the model sees too little around an anchor to be trusted
            fully: weights rise linearly over them.
        fps: slots per second.
    """

    frames: int
    levels: int
    stride: int
    hop: int
    margin: int
    fps: float

    def __post_init__(self) -> None:
        """Check that anchors of all windows lie on one grid."""
        coarsest = self.stride ** (self.levels - 1)
        if self.frames % coarsest or self.hop % coarsest:
            raise ValueError(
                f"windows and hops are multiples of {coarsest} frames, got {self.frames = }, {self.hop = }"
            )
        if not 0 < self.hop <= self.frames or self.margin < 0 or self.fps <= 0:
            raise ValueError(f"need 0 < hop <= frames, margin >= 0, fps > 0: {self}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Anchors of every level, fine to coarse."""
        return level_lengths(self.frames, self.levels, self.stride)

    @cached_property
    def steps(self) -> Anchors:
        """The N anchors of a window."""
        return anchors(self.frames, self.levels, self.stride)

    def mask(self, filled: int) -> npt.NDArray[np.bool_]:
        """(N,) anchors of a window whose first `filled` slots hold frames."""
        return self.steps.times < filled

    def weights(self, window: Window) -> FloatArray:
        """(N,) float32 trust in each anchor of a window: a trapezoid, flat where the stream itself begins or ends."""
        times = self.steps.times
        trust = np.ones_like(times)
        if window.origin > 0:
            trust = np.minimum(trust, (times + 1) / np.float32(self.margin + 1))
        if not window.last:
            trust = np.minimum(trust, (window.filled - times) / np.float32(self.margin + 1))
        return np.where(times < window.filled, trust, np.float32(0)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The clip that the model sees."""

    origin: int
    """Its first slot."""
    filled: int
    """Slots that hold frames, at most T; the others are zero."""
    video: FloatArray
    """(T, D) float32 projected frames."""
    times: tuple[float, ...]
    """Media time of the filled slots, seconds."""
    last: bool
    """The stream ends with it."""

    def seconds(self, position: float, fps: float) -> float:
        """Media time of a position in the window, in slots; between frames by interpolation, outside at the rate."""
        i = min(max(math.floor(position), 0), self.filled - 1)
        step = self.times[i + 1] - self.times[i] if position >= 0 and i + 1 < self.filled else 1 / fps
        return self.times[i] + (position - i) * step


@dataclass(slots=True)
class Ring:
    """The last T slots of a stream."""

    base: int | None = None
    """Number of the first slot ever, counted from media time zero; None before the first frame."""
    first: int = 0
    """Number of the oldest slot that is kept, counted from `base`."""
    vectors: list[FloatArray] = field(default_factory=list)
    """(D,) float32 each."""
    times: list[float] = field(default_factory=list)
    """Media time of the slots, seconds."""

    @property
    def end(self) -> int:
        """Number of the slot that comes next."""
        return self.first + len(self.vectors)

    def slot(self, t: float, plan: WindowPlan) -> int:
        """The slot that a frame at media time `t` falls into; 0 for the first frame of all."""
        number = math.floor(t * plan.fps + _EARLY)
        return 0 if self.base is None else number - self.base

    def push(self, t: float, vector: FloatArray, plan: WindowPlan) -> Iterator[Window]:
        """Put a frame into its slot, and what was seen before it into slots without a frame.

        Yields:
            The windows that are complete by that, one by one: each is to be used before the next is asked for. A frame
            whose slot is taken changes nothing.
        """
        if self.base is None:
            self.base = math.floor(t * plan.fps + _EARLY)
        yield from self.hold(t, plan)
        if self.end == self.slot(t, plan):
            yield from self._append(t, vector, plan)

    def hold(self, t: float, plan: WindowPlan) -> Iterator[Window]:
        """Fill the slots up to media time `t` with what was seen last; yields windows as `push` does."""
        while self.base is not None and self.end < self.slot(t, plan):
            yield from self._append((self.base + self.end) / plan.fps, self.vectors[-1], plan)

    def close(self, plan: WindowPlan) -> Window | None:
        """The last window of the stream, with all that no other window can follow; None if there was no frame."""
        if not self.vectors:
            return None
        return self._window(-(-self.end // plan.hop) * plan.hop, plan, last=True)

    def _append(self, t: float, vector: FloatArray, plan: WindowPlan) -> Iterator[Window]:
        if len(self.vectors) == plan.frames:
            del self.vectors[0], self.times[0]
            self.first += 1
        self.vectors.append(vector)
        self.times.append(t)
        if self.end % plan.hop == 0:
            yield self._window(self.end, plan, last=False)

    def _window(self, end: int, plan: WindowPlan, *, last: bool) -> Window:
        """The window up to slot `end`, a multiple of the hop."""
        origin = max(0, end - plan.frames)
        skipped = origin - self.first
        vectors = self.vectors[skipped:]
        video = np.zeros((plan.frames, len(vectors[0])), np.float32)
        video[: len(vectors)] = vectors
        return Window(origin, len(vectors), video, tuple(self.times[skipped:]), last)


@dataclass(slots=True)
class Pool:
    """What the windows so far say about the anchors of the newest of them: weighted means for one query.

    Boundaries that lie outside a window are guesses. A start that a later window cuts off counts next to nothing beside
    one that was seen, and an end that was still to come is forgotten when another window has seen further.
    """

    origin: int
    logits: FloatArray
    """(N,) float32."""
    boxes: FloatArray
    """(N, 2) float32 displacements, in strides of the level."""
    weights: FloatArray
    """(N,) float32 sums, of the logits; 0 where no window has spoken yet."""
    box_weights: FloatArray
    """(N, 2) float32 sums, of the displacements."""
    to_come: npt.NDArray[np.bool_]
    """(N,) whether the end lay behind the window that told it."""

    @classmethod
    def empty(cls, plan: WindowPlan) -> Pool:
        """Before the first window."""
        n = len(plan.steps.times)
        return cls(
            origin=0,
            logits=np.zeros(n, np.float32),
            boxes=np.zeros((n, 2), np.float32),
            weights=np.zeros(n, np.float32),
            box_weights=np.zeros((n, 2), np.float32),
            to_come=np.zeros(n, np.bool_),
        )

    def add(self, window: Window, logits: FloatArray, boxes: FloatArray, plan: WindowPlan) -> None:
        """Take in what the model says about a window: (N,) logits and (N, 2) displacements."""
        if window.origin == self.origin:
            self.weights, self.box_weights = np.zeros_like(self.weights), np.zeros_like(self.box_weights)
        else:
            self._move(window.origin, plan)
        self.mix(slice(None), window, logits, boxes, plan)

    def mix(
        self,
        where: slice | npt.NDArray[np.intp],
        window: Window,
        logits: FloatArray,
        boxes: FloatArray,
        plan: WindowPlan,
    ) -> None:
        """Average what is said about the anchors of a window into those anchors of the pool."""
        trust = plan.weights(window)
        before, to_come = _out_of_sight(window, boxes, plan)
        shares = np.stack([np.where(before, trust * _UNSEEN, trust), trust], axis=1)
        known = self.box_weights[where]
        known[:, 1] = np.where(self.to_come[where], 0, known[:, 1])
        self.to_come[where] = to_come & (known[:, 1] == 0)
        self.boxes[where], self.box_weights[where] = _averaged(self.boxes[where], known, boxes, shares)
        self.logits[where], self.weights[where] = _averaged(self.logits[where], self.weights[where], logits, trust)

    def _move(self, origin: int, plan: WindowPlan) -> None:
        """Forget what lies before `origin`."""
        slots, self.origin = origin - self.origin, origin
        self.logits, self.weights = _shifted(self.logits, slots, plan), _shifted(self.weights, slots, plan)
        self.boxes, self.box_weights = _shifted(self.boxes, slots, plan), _shifted(self.box_weights, slots, plan)
        self.to_come = _shifted(self.to_come, slots, plan)


def _out_of_sight(
    window: Window, boxes: FloatArray, plan: WindowPlan
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(N,) which starts lie before the window, and which ends behind it, in a stream that goes on there."""
    times, strides = plan.steps
    before = times - boxes[:, 0] * strides < 1
    behind = times + boxes[:, 1] * strides > window.filled - 1
    return before & (window.origin > 0), behind & (not window.last)


def _averaged(
    mean: FloatArray, weight: FloatArray, value: FloatArray, share: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and weight after one more value; the first to come is kept to the last bit."""
    total = weight + share
    part = np.divide(share, total, out=np.zeros_like(total), where=total > 0)
    return np.where(part == 1, value, mean + part * (value - mean)), total


def _shifted(values: npt.NDArray[_T], slots: int, plan: WindowPlan) -> npt.NDArray[_T]:
    """The anchors (N, ...) of a window `slots` later; zeros where nothing is known."""
    moved, start = np.zeros_like(values), 0
    for level, length in enumerate(plan.lengths):
        kept = max(0, length - slots // plan.stride**level)
        moved[start : start + kept] = values[start + length - kept : start + length]
        start += length
    return moved
