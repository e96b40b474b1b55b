"""What the scores of objects are computed from: frames of videos, what is true in them, and what was told."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Boxes", "World", "box_iou"]

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Boxes:
    """Boxes of any number of frames, one row each."""

    frames: Ints
    """(N,) place of the frame in `World.videos`."""
    boxes: NDArray[np.float64]
    """(N, 4) left, top, width, height, in one unit all over the world."""
    tracks: Ints
    """(N,) identity within the video."""
    scores: NDArray[np.float64]
    """(N,)."""
    captions: tuple[str, ...]
    """N texts; "" = without."""

    @classmethod
    def make(
        cls,
        frames: ArrayLike,
        boxes: ArrayLike,
        tracks: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        captions: Sequence[str] | None = None,
    ) -> Self:
        """Rows out of sequences. What is left out is 0 for tracks, 1 for scores, and no caption.

        Raises:
            ValueError: the sequences are not of one length, or boxes are not (N, 4).
        """
        places = np.asarray(frames, np.int64).reshape(-1)
        count = len(places)
        rows = np.asarray(boxes, np.float64).reshape(-1, 4)
        ids = np.zeros(count, np.int64) if tracks is None else np.asarray(tracks, np.int64).reshape(-1)
        values = np.ones(count) if scores is None else np.asarray(scores, np.float64).reshape(-1)
        texts = ("",) * count if captions is None else tuple(captions)
        if not count == len(rows) == len(ids) == len(values) == len(texts):
            lengths = f"{len(rows)} boxes, {len(ids)} tracks, {len(values)} scores, {len(texts)} captions"
            raise ValueError(f"{count} frames, {lengths}: they should be of one length")
        return cls(places, rows, ids, values, texts)

    def __len__(self) -> int:
        """N."""
        return len(self.frames)

    def take(self, rows: Ints) -> Boxes:
        """Some of the rows, in the order given."""
        texts = tuple(self.captions[row] for row in rows)
        return Boxes(self.frames[rows], self.boxes[rows], self.tracks[rows], self.scores[rows], texts)

    def by_frame(self, count: int) -> list[Boxes]:
        """The rows of each of the `count` frames, in their order."""
        order = np.argsort(self.frames, kind="stable")
        edges = np.searchsorted(self.frames[order], np.arange(count + 1))
        return [self.take(order[a:b]) for a, b in zip(edges, edges[1:], strict=False)]


@dataclass(frozen=True)
class World:
    """Videos, as frames one after the other, with what is true and what was told."""

    videos: tuple[Hashable, ...]
    """The video of each frame. The frames of a video stand in order of time."""
    truth: Boxes
    """Scores do not count."""
    told: Boxes

    def __post_init__(self) -> None:
        """Refuse boxes of frames that are not there."""
        for name, rows in (("truth", self.truth), ("told", self.told)):
            if len(rows) and not (rows.frames.min() >= 0 and rows.frames.max() < len(self.videos)):
                raise ValueError(f"{name}: a box stands in a frame that is none of the {len(self.videos)}")

    def looked_at(self) -> World:
        """Only the frames in which anything was told, for output that looks at fewer frames than the truth tells of."""
        kept = np.unique(self.told.frames)
        places = np.full(len(self.videos), -1)
        places[kept] = np.arange(len(kept))
        videos = tuple(self.videos[i] for i in kept)
        parts = []
        for boxes in (self.truth, self.told):
            rows = boxes.take(np.flatnonzero(places[boxes.frames] >= 0))
            parts.append(replace(rows, frames=places[rows.frames]))
        return World(videos, *parts)

    def frames_of(self) -> dict[Hashable, list[int]]:
        """Video -> its frames, videos in the order in which they come first."""
        found: dict[Hashable, list[int]] = {}
        for place, video in enumerate(self.videos):
            found.setdefault(video, []).append(place)
        return found


def box_iou(one: Floats, other: Floats) -> Floats:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4), left, top, width, height, in their own precision.

    Where the union is empty it is 0.
    """
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    far = np.minimum(one[:, None, :2] + one[:, None, 2:], other[None, :, :2] + other[None, :, 2:])
    sides = (far - corner).clip(0)
    shared = sides[..., 0] * sides[..., 1]
    union = (one[:, 2] * one[:, 3])[:, None] + (other[:, 2] * other[:, 3])[None] - shared
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou
