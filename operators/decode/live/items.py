"""What a live reader tells: frames, epochs, states and notices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..clip import CutVideo
from ..pixels import RGB
from .clock import EpochReason, Wall
from .problems import Problem

__all__ = ["ClipCut", "EpochStart", "Item", "LiveFrame", "LiveState", "Notice", "StateChange"]

LiveState = Literal["connecting", "live", "stalled", "reconnecting", "ended"]


@dataclass(frozen=True, slots=True, eq=False)
class LiveFrame:
    """One decoded frame."""

    epoch: int
    """The epoch it belongs to: `EpochStart.epoch`."""
    t: float
    """Event time, seconds since the epoch's first frame; strictly increasing in the epoch."""
    index: int
    """Number of this delivered frame in its epoch, 0, 1, 2 ..."""
    pixels: RGB
    """(H, W, 3) uint8 RGB at the asked size, upright."""
    preview: RGB | None
    """(h, w, 3) uint8 RGB with square pixels, if asked for."""
    pts: float | None
    """Presentation time in seconds on the source's own clock, None where it had none."""
    wall: Wall
    """When it was taken."""
    arrival: float
    """When its packet arrived at this host, monotonic seconds (`time.monotonic`)."""
    arrival_unix: float
    """The same in Unix time."""
    source_size: tuple[int, int]
    """(width, height) of the video as shown, pixels."""
    key: bool
    """A key frame."""
    codec: str


@dataclass(frozen=True, slots=True)
class EpochStart:
    """A new line of time begins; frames of the one before are over."""

    epoch: int
    """Unix milliseconds of its first frame by the time source known then; larger than every earlier epoch."""
    why: EpochReason
    """`start` after connecting, else the change that cannot be told as one line of time."""
    wall: Wall
    size: tuple[int, int]
    """(width, height) as shown, pixels."""
    pixel_aspect: float
    """Width of a shown pixel over its height."""
    codec: str


@dataclass(frozen=True, slots=True)
class StateChange:
    """The stream is in another state, or again in the same one after another failed attempt."""

    state: LiveState
    reason: str
    """One word: `start`, `frames`, `no_frames`, a problem's kind, `complete`, `interrupted`."""
    problem: Problem | None = None
    """What is wrong, for people."""
    retry_in: float | None = None
    """Seconds until the next attempt."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth a line in the log that changes nothing."""

    message: str


@dataclass(frozen=True, slots=True, eq=False)
class ClipCut:
    """The answer to `LiveReader.clip`."""

    number: int
    """Of the request."""
    clip: CutVideo | None
    """None where nothing can be given."""
    error: str = ""
    """Why, one line for people."""


Item = ClipCut | LiveFrame | EpochStart | StateChange | Notice
