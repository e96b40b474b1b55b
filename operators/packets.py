"""The typed data that travels on the edges of a graph.

One packet is one instant of one stream on one edge. Arrays are NumPy, so that a process that only decodes or only
writes files never imports torch; ``torch.from_numpy`` shares their memory. Arrays are not to be written to once they
are in a packet: the same object may be read by several operators.

Every packet checks its own shapes and dtypes when it is made, where the mistake is, and not three operators later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .events import Event

__all__ = [
    "Detections",
    "Embedding",
    "Events",
    "FeatureMaps",
    "Frame",
    "Memory",
    "Packet",
    "PacketError",
    "Scores",
    "Tokens",
]

FloatArray = npt.NDArray[np.float32]


class PacketError(ValueError):
    """A packet whose data does not fit its type; an operator's programming error, never the user's input."""


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise PacketError(message)


def _check_array(name: str, array: Any, dtype: type[np.generic], ndim: int) -> None:
    _check(isinstance(array, np.ndarray), f"{name} must be a numpy array, got {type(array).__name__}")
    _check(array.dtype == dtype, f"{name} must be {np.dtype(dtype).name}, got {array.dtype = !s}")
    _check(array.ndim == ndim, f"{name} must have {ndim} dimensions, got {array.shape = }")


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """What every packet carries: whose it is and when."""

    stream: str
    """Name of the stream, ``[A-Za-z0-9._-]+``."""
    epoch: int
    """Media epoch: 0 for files, the epoch's first wall time in ms for live streams."""
    t: float
    """Media time in seconds from the epoch's zero; finite, strictly increasing on each edge of a stream."""

    def __post_init__(self) -> None:
        """Check the fields that all packets share."""
        _check(math.isfinite(self.t), f"t must be finite, got {self.t = }")


@dataclass(frozen=True, slots=True, eq=False)
class Frame(Packet):
    """One sampled picture. It covers media time from ``t`` to the next frame's ``t`` or the end of the stream."""

    pixels: npt.NDArray[np.uint8]
    """(H, W, 3) uint8 RGB, at the size the consumer of this edge asked for."""
    index: int
    """Number of this sample in its epoch, 0, 1, 2 ..."""
    source_size: tuple[int, int]
    """(width, height) of the video in pixels after rotation: the aspect to restore when a frame was squashed."""

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        Packet.__post_init__(self)
        _check_array("pixels", self.pixels, np.uint8, 3)
        _check(self.pixels.shape[2] == 3, f"pixels must be (H, W, 3), got {self.pixels.shape = }")
        _check(self.index >= 0, f"index must not be negative, got {self.index = }")


@dataclass(frozen=True, slots=True, eq=False)
class Tokens(Packet):
    """What the tower saw in one frame, place by place."""

    grid: FloatArray
    """(N, D) float32 tokens of the grid cells, row by row from the top left; not normalised."""
    cls: FloatArray | None = None
    """(D,) float32 class token, for towers that have one."""
    shape: tuple[int, int] | None = None
    """(h, w) of the grid, h * w = N, where it is known: the cells lie over the whole picture."""

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        Packet.__post_init__(self)
        _check_array("grid", self.grid, np.float32, 2)
        if self.shape is not None:
            h, w = self.shape
            _check(h * w == len(self.grid), f"need {self.shape = } to have as many cells as {self.grid.shape = }")
        if self.cls is not None:
            _check_array("cls", self.cls, np.float32, 1)
            _check(
                self.cls.shape[0] == self.grid.shape[1],
                f"cls must be as wide as grid, got {self.cls.shape = }, {self.grid.shape = }",
            )

    @property
    def all(self) -> FloatArray:
        """(N, D) or, with a class token in front, (N + 1, D) float32: the tokens of the frame as memories take them."""
        return self.grid if self.cls is None else np.concatenate([self.cls[None], self.grid])


@dataclass(frozen=True, slots=True, eq=False)
class Embedding(Packet):
    """One frame as a point in the space that pictures and texts share."""

    features: FloatArray
    """(E,) float32, as the tower gives them: not normalised, so that they can be averaged over a window first."""

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        Packet.__post_init__(self)
        _check_array("features", self.features, np.float32, 1)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMaps(Packet):
    """What the stages of a tower's trunk saw in one frame: the detectors' view of it."""

    maps: tuple[FloatArray, ...]
    """(h, w, C) float32 each, finest first; the cells of each lie over the whole picture."""

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        Packet.__post_init__(self)
        _check(len(self.maps) > 0, "a FeatureMaps packet holds at least one map")
        for i, level in enumerate(self.maps):
            _check_array(f"maps[{i}]", level, np.float32, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Detections(Packet):
    """The objects of one frame, best first; there may be none."""

    boxes: FloatArray
    """(N, 4) float32 x0, y0, x1, y1 as parts of the picture, from 0 to 1."""
    scores: FloatArray
    """(N,) float32 from 0 to 1."""
    features: FloatArray | None = None
    """(N, R, C) float32: R = r * r cells of each box, row by row, as its detector's pyramid sees them."""
    names: tuple[str, ...] | None = None
    """What each is, for detectors that know names."""
    looks: FloatArray | None = None
    """(N, D) float32: what each looks like, as unit vectors, for knowing it again."""

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        Packet.__post_init__(self)
        _check_array("boxes", self.boxes, np.float32, 2)
        _check_array("scores", self.scores, np.float32, 1)
        count = len(self.scores)
        _check(
            bool(np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()), "boxes and scores must be finite"
        )
        _check(self.boxes.shape == (count, 4), f"need {self.boxes.shape = } to be (N, 4) for {self.scores.shape = }")
        if self.features is not None:
            _check_array("features", self.features, np.float32, 3)
            _check(len(self.features) == count, f"one feature per box, got {self.features.shape = }, {count = }")
        if self.names is not None:
            _check(len(self.names) == count, f"one name per box, got {len(self.names) = }, {count = }")
        if self.looks is not None:
            _check_array("looks", self.looks, np.float32, 2)
            _check(len(self.looks) == count, f"one vector per box, got {self.looks.shape = }, {count = }")


@dataclass(frozen=True, slots=True, eq=False)
class Memory(Packet):
    """The state of a token memory after the frame at ``t``."""

    centers: FloatArray
    """(M, D) float32; M is the capacity K, or fewer while fewer tokens than K have been seen."""
    counts: npt.NDArray[np.int32]
    """(M,) int32: how many tokens each centre stands for."""
    t_start: float
    """Media time of the first frame in this memory, in seconds."""
    capacity: int
    """K, the number of centres that a full memory has."""
    times: FloatArray | None = None
    """(M, 2) float32, seconds since ``t_start``: mean and standard deviation of the times of the tokens that each
    centre stands for; None if they were not kept."""

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        Packet.__post_init__(self)
        _check_array("centers", self.centers, np.float32, 2)
        if self.times is not None:
            _check_array("times", self.times, np.float32, 2)
            _check(self.times.shape == (len(self.centers), 2), f"need {self.times.shape = } to be (M, 2)")
        _check_array("counts", self.counts, np.int32, 1)
        _check(
            len(self.centers) == len(self.counts) <= self.capacity,
            f"need len(centers) == len(counts) <= capacity, got {self.centers.shape = }, {self.counts.shape = }, "
            f"{self.capacity = }",
        )
        _check(
            self.t_start <= self.t,
            f"a memory cannot start after its last frame: {self.t_start = }, {self.t = }",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scores(Packet):
    """How well each query fits at one instant: the curves of the report."""

    names: tuple[str, ...]
    """The Q queries, as the user wrote them."""
    values: FloatArray
    """(Q,) float32."""

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        Packet.__post_init__(self)
        _check_array("values", self.values, np.float32, 1)
        _check(
            len(self.names) == len(self.values),
            f"one value per query, got {len(self.names) = }, {self.values.shape = }",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Events(Packet):
    """What became known at media time ``t``; several events of one operator may share that instant."""

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        """Check that the events belong to this packet."""
        Packet.__post_init__(self)
        _check(len(self.events) > 0, "an Events packet holds at least one event")
        for event in self.events:
            _check(
                event.data.stream == self.stream,
                f"event of stream {event.data.stream!r} in a packet of stream {self.stream!r}",
            )
