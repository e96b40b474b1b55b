"""When tracks are described: at first sight, and better as evidence comes, within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..packets import FloatArray
from .tracks import Track
from .views import Cutout, Pixels

__all__ = ["Allowance", "Describer", "FrameDescriber", "wanted"]


class Describer(Protocol):
    """Writes captions of regions from a tower's tokens."""

    views: int
    """Frames that a caption is made from."""

    def tokens(self, grid: FloatArray, boxes: FloatArray) -> FloatArray:
        """Views (N, R, D) of boxes (N, 4), parts of the picture, in one frame's tokens (h, w, D)."""
        ...

    def caption(self, tracks: Sequence[FloatArray]) -> Sequence[tuple[str, float]]:
        """Text and score of each track's views (n, R, D), in the order of time."""
        ...


@runtime_checkable
class FrameDescriber(Protocol):
    """Writes captions of regions from what is cut out of frames."""

    views: int
    """Frames that a caption is made from."""

    def look(self, frame: Pixels, boxes: FloatArray, aspect: float) -> Sequence[Cutout]:
        """Views of boxes (N, 4), parts of the picture, in a frame (H, W, 3); copies, which do not keep the frame.

        `aspect` is width by height of the picture as it was filmed: frames may be squashed.
        """
        ...

    def caption(self, tracks: Sequence[Sequence[Cutout]]) -> Sequence[tuple[str, float]]:
        """Text and score of each track's views, in the order of time."""
        ...


@dataclass(slots=True)
class Allowance:
    """How much may be done, by media time: what is not used is saved for at most two seconds."""

    saved: float = 0.0
    since: float | None = None
    """Media time of the last grant; None before the first."""

    def grant(self, t: float, rate: float) -> int:
        """How often it may be done at media time `t`, at `rate` a second."""
        most = max(1.0, 2 * rate)
        self.saved = most if self.since is None else min(most, self.saved + (t - self.since) * rate)
        self.since = t
        return int(self.saved + 1e-6)

    def spend(self, count: int) -> None:
        """It was done so often."""
        self.saved = max(0.0, self.saved - count)


def wanted(tracks: Iterable[Track], leaving: set[int]) -> list[Track]:
    """Tracks whose caption is worth writing anew, the most urgent first.

    First those without one, then those seen twice as often as when theirs was written, then those of `leaving`
    (identities that may never be seen again) for which anything came since.
    """
    urgent = [(rank, track.identity, track) for track in tracks if (rank := _rank(track, leaving)) is not None]
    return [track for _, _, track in sorted(urgent, key=lambda entry: entry[:2])]


def _rank(track: Track, leaving: set[int]) -> int | None:
    if track.views.count == track.captioned_at:
        return None
    if track.text is None:
        return 0
    if track.views.count >= 2 * track.captioned_at:
        return 1
    return 2 if track.identity in leaving else None
