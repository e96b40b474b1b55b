"""The detections of the last frames of a stream, and their identities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..packets import FloatArray
from .linking import CLOSED, NONE, Known, link
from .views import View

__all__ = ["Seen", "Sighting", "Window", "WindowRules"]


@dataclass(frozen=True, slots=True)
class WindowRules:
    """How detections become tracks.

    Attributes:
        frames: W, the frames that are looked at together.
        threshold: lowest association score of two detections that begin a track together.
        birth_score: scores of detections that look alike must add up to it to begin a track.
        delay: frames that a detection waits for its identity, W / 2 at most, so that those before it are still seen.
            0 tells at once; a stream of no more frames is grouped as a whole, as in the paper.
    """

    frames: int = 16
    threshold: float = 0.7
    birth_score: float = 0.7
    delay: int = 0


class Relate(Protocol):
    """Association scores (M, M) float32 of tokens (M, width): row and column are the same object."""

    def __call__(self, tokens: FloatArray) -> FloatArray:
        """Compute them."""
        ...


@dataclass(slots=True)
class Seen:
    """The detections of one frame."""

    number: int
    """Of the frame, from 0."""
    t: float
    boxes: FloatArray
    """(N, 4) x0, y0, x1, y1 as parts of the picture."""
    scores: FloatArray
    """(N,)"""
    tokens: FloatArray
    """(N, width) for the association."""
    looks: npt.NDArray[np.float16]
    """(N, D) unit vectors, see `looks`."""
    names: tuple[str, ...] | None = None
    views: list[View | None] = field(default_factory=list)
    """What a caption of each is made from, until it has an identity; empty without captions."""
    pixels: npt.NDArray[np.uint8] | None = None
    """(H, W, 3) the frame itself, until its detections have their identities; None where nobody looks at it."""
    identities: npt.NDArray[np.int64] = field(init=False)
    """(N,) see `linking`."""

    def __post_init__(self) -> None:
        """Nobody is known yet."""
        self.identities = np.full(len(self.scores), NONE, np.int64)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A detection that has just been given its identity."""

    identity: int
    t: float
    box: tuple[float, float, float, float]
    score: float
    name: str | None
    view: View | None


@dataclass(slots=True)
class Window:
    """The last W frames of a stream; bounded, whatever comes."""

    frames: list[Seen] = field(default_factory=list)
    next_number: int = 0
    next_identity: int = 0

    def push(self, seen: Seen, rules: WindowRules) -> None:
        """Take in the next frame; the oldest one leaves a full window."""
        seen.number = self.next_number
        self.next_number += 1
        self.frames = [*self.frames[max(0, len(self.frames) - rules.frames + 1) :], seen]

    def settle(self, relate: Relate, rules: WindowRules, *, last: bool = False) -> list[Sighting]:
        """Give identities to detections that have waited long enough, or, of the last frame, to all that are left.

        Returns:
            Them, in the order of time and, within a frame, of detections.
        """
        counts = [len(seen.scores) for seen in self.frames]
        if not sum(counts):
            return []
        frames = np.repeat([seen.number for seen in self.frames], counts)
        before = np.concatenate([seen.identities for seen in self.frames])
        ready = np.full(len(frames), True) if last else frames < self.next_number - rules.delay
        if not (ready & (before == NONE)).any():
            return []
        scores = relate(np.concatenate([seen.tokens for seen in self.frames]))
        known = Known(
            frames,
            np.concatenate([seen.boxes for seen in self.frames]),
            np.concatenate([seen.scores for seen in self.frames]),
            np.concatenate([seen.looks for seen in self.frames]).astype(np.float32),
        )
        linked = link(scores, before, known, ready, rules.threshold, rules.birth_score, self.next_identity)
        self.next_identity = max(self.next_identity, int(linked.max()) + 1)
        for seen, own in zip(self.frames, np.split(linked, np.cumsum(counts)[:-1]), strict=True):
            seen.identities = own
        starts = np.cumsum([0, *counts])
        found = []
        for i in np.flatnonzero((before == NONE) & (linked >= 0)).tolist():
            frame = int(np.searchsorted(starts, i, side="right")) - 1
            found.append(_sighting(self.frames[frame], i - int(starts[frame])))
        return found

    def present(self) -> set[int]:
        """Identities that were seen within the window."""
        return {identity for seen in self.frames for identity in seen.identities.tolist() if identity >= 0}

    def close(self, identity: int) -> None:
        """Forget who had this identity: it is not given again."""
        for seen in self.frames:
            seen.identities[seen.identities == identity] = CLOSED


def _sighting(seen: Seen, i: int) -> Sighting:
    """Detection `i` of a frame, whose view is given away."""
    view = None
    if seen.views:
        view, seen.views[i] = seen.views[i], None
    x0, y0, x1, y1 = seen.boxes[i].tolist()
    name = None if seen.names is None else seen.names[i]
    return Sighting(int(seen.identities[i]), seen.t, (x0, y0, x1, y1), float(seen.scores[i]), name, view)
