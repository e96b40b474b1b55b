"""Captions of objects from cut-outs of frames, which the tower reads anew.

A tower's grid is coarse: of an object that fills a quarter of the picture a few tokens are left, which have seen what
is around them as well. Cut out and shown alone, the same object gets the whole grid, and the captioner sees what it was
trained on: a picture. That costs a pass of the tower, but only when a caption is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..caption.check import DEFAULT_WEIGHT, nearness
from ..errors import OnlookerError
from ..packets import FloatArray
from .views import Cutout, Pixels

if TYPE_CHECKING:
    from ..caption.captioner import CaptionModel
    from ..tower import Tower

__all__ = ["CutoutCaptioner", "cut_out"]

Box = Sequence[float] | FloatArray

_TEXTS = 8
"""Texts that are compared with a view in one call."""
_COVERED = 0.05
"""What a covered pixel of a view counts beside a clear one: of objects that lie in others all views are covered."""


def cut_out(frame: Pixels, box: Box, margin: float = 0.0) -> Pixels:
    """The part of a frame (H, W, 3) that a box and what is around it cover; at least one pixel.

    Args:
        frame: the picture.
        box: x0, y0, x1, y1 as parts of the picture.
        margin: parts of the box's sides that are added around it.
    """
    return frame[_window(frame, box, margin)]


def _window(frame: Pixels, box: Box, margin: float = 0.0) -> tuple[slice, slice]:
    """Rows and columns."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    left, top = int(max(0.0, x0 - dx) * width), int(max(0.0, y0 - dy) * height)
    right, bottom = int(np.ceil(min(1.0, x1 + dx) * width)), int(np.ceil(min(1.0, y1 + dy) * height))
    left, top = min(left, width - 1), min(top, height - 1)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


class CutoutCaptioner:
    """Describes objects from cut-outs; it keeps no state between calls.

    Of a track's views the one is read that shows most of the object: large, and with few of its pixels inside the boxes
    of others, which may hide it. On generated videos of Flickr8k dev such captions fit the object's photograph better
    than another one for .69 of 93 tracks, those of the largest views for .66.

    A tower that reads texts has a second opinion, as on captions of the whole picture: among the texts that the search
    proposes the one counts that fits the object as well (`caption/check.py`).
    """

    def __init__(self, captioner: CaptionModel, tower: Tower, views: int = 4) -> None:
        """Take a captioner of the tower's tokens.

        Args:
            captioner: reads the tokens of a picture.
            tower: with its image side.
            views: cut-outs, spread over a track, of which one is read.

        Raises:
            OnlookerError: the captioner was trained with another tower.
        """
        wanted, given = captioner.token_width, tower.token_width
        if given != wanted:
            raise OnlookerError(
                f"the captioner reads tokens of width {wanted}, and tower {tower.name!r} gives {given}: choose the "
                "tower that it was trained with."
            )
        self.captioner, self.tower, self.views = captioner, tower, views

    def look(self, frame: Pixels, boxes: FloatArray) -> list[Cutout]:
        """Views of boxes (N, 4), parts of the picture, in a frame (H, W, 3): copies of its pixels there."""
        windows = [_window(frame, box) for box in boxes]
        boxes_at = np.zeros(frame.shape[:2], np.uint16)
        for window in windows:
            boxes_at[window] += 1
        return [Cutout(frame[window].copy(), float((boxes_at[window] == 1).mean())) for window in windows]

    def caption(self, tracks: Sequence[Sequence[Cutout]]) -> list[tuple[str, float]]:
        """Text and score of each track's views."""
        best = [max(views, key=_shown).pixels for views in tracks]
        # One picture a call: what a track is told of does not depend on how many are told of.
        read = self.tower.encode_frames(self.tower.preprocess(best), batch=1)
        features = read.features.numpy()  # (N, E)

        def near(i: int, texts: Sequence[str]) -> list[float]:
            return nearness(self.tower, texts, features[i], batch=_TEXTS, weight=DEFAULT_WEIGHT)

        proposals = self.captioner.propose(list(read.tokens), bonus=near if self.tower.reads_texts else None)
        return [(texts[0].text, texts[0].probability) for texts in proposals]


def _shown(view: Cutout) -> float:
    """How much a view shows, in pixels."""
    return view.pixels.size / 3 * (view.clear + _COVERED)
