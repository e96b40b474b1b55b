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

__all__ = ["CutoutCaptioner", "as_picture", "cut_out"]

Box = Sequence[float] | FloatArray

_TEXTS = 8
"""Texts that are compared with a view in one call."""
_LONGEST = 4 / 3
"""Longer by shorter side of a view, at most: the photographs that captioners learn from are hardly longer."""
_COVERED = 0.05
"""What a covered pixel of a view counts beside a clear one: of objects that lie in others all views are covered."""


def cut_out(frame: Pixels, box: Box, margin: float = 0.0) -> Pixels:
    """The part of a frame (H, W, 3) that a box and what is around it cover; at least one pixel.

    Args:
        frame: the picture.
        box: x0, y0, x1, y1 as parts of the picture.
        margin: parts of the box's sides that are added around it.
    """
    x0, y0, x1, y1 = (float(side) for side in box)
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return frame[_pixels_of((x0 - dx, y0 - dy, x1 + dx, y1 + dy), frame)]


def _pixels_of(box: Box, frame: Pixels) -> tuple[slice, slice]:
    """Rows and columns that a box touches, at least one each."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    left, top = min(int(max(0.0, x0) * width), width - 1), min(int(max(0.0, y0) * height), height - 1)
    right, bottom = int(np.ceil(min(1.0, x1) * width)), int(np.ceil(min(1.0, y1) * height))
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def as_picture(box: Box, aspect: float) -> tuple[float, float, float, float]:
    """A box that is much higher than wide, or wider than high, with what is beside it: as a photograph would show it.

    A tower squashes what it is given to a square. It learnt from photographs, which are little longer than wide; a
    standing person alone would become three times as broad, which it has never seen.

    Args:
        box: x0, y0, x1, y1 as parts of the picture.
        aspect: width of the whole picture by its height, as it was filmed.

    Returns:
        A box around it within the picture; of a picture that is too small for it, all there is.
    """
    x0, y0, x1, y1 = (float(side) for side in box)
    wide, high = (x1 - x0) * aspect, y1 - y0  # in heights of the picture
    sides = max(wide, high / _LONGEST) / aspect, max(high, wide / _LONGEST)
    left, right = _around(x0, x1, sides[0])
    top, bottom = _around(y0, y1, sides[1])
    return left, top, right, bottom


def _around(start: float, end: float, side: float) -> tuple[float, float]:
    """An interval of that length around another one, moved to lie within 0 and 1."""
    side = min(side, 1.0)
    first = min(max((start + end - side) / 2, 0.0), 1.0 - side)
    return first, first + side


class CutoutCaptioner:
    """Describes objects from cut-outs; it keeps no state between calls.

    Of a track's views the one is read that shows most of the object: large, and with few of its pixels inside the boxes
    of others, which may hide it. On generated videos of Flickr8k dev in which photographs cross, such captions fit the
    object's photograph better than another one for .66 of 140 tracks, those of the largest views for .64: with
    faultless boxes .65 and .60 (a difference of .05, -.01 to .12), with the detector's no difference.

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

    def look(self, frame: Pixels, boxes: FloatArray, aspect: float) -> list[Cutout]:
        """See `FrameDescriber.look`."""
        own = [_pixels_of(box, frame) for box in boxes]
        boxes_at = np.zeros(frame.shape[:2], np.uint16)
        for place in own:
            boxes_at[place] += 1
        views = []
        for box, place in zip(boxes, own, strict=True):
            shown = frame[_pixels_of(as_picture(box, aspect), frame)].copy()
            views.append(Cutout(shown, int((boxes_at[place] == 1).sum()), boxes_at[place].size))
        return views

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
    return view.clear + _COVERED * view.size
