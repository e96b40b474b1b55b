"""Pseudo-video for training an association: scenes of moving things, and photographs that the camera zooms into.

A clip of T frames is T views of a `ViewCache`, whose k-th box is the k-th object of the clip in every frame, zeros
where it cannot be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from .bank import ObjectBank
from .detector_data import SIZE, View
from .pseudo_video import SceneOptions, draw_scene
from .zoom import random_view, zoom_photograph

__all__ = ["Clip", "ClipOptions", "ClipViews", "draw_clip"]


@dataclass(frozen=True)
class ClipOptions:
    """How clips are drawn.

    Attributes:
        frames: T.
        zoomed: share of clips that are one photograph under a moving camera.
        rates: frames a second of scenes are drawn between these: slow motion and large leaps.
        scene: what scenes show, besides rate and length.
        visible: part of an object that must be seen for its box to count.
        most: objects of a clip; the first ones are kept.
    """

    frames: int = 16
    zoomed: float = 0.2
    rates: tuple[float, float] = (1.5, 4.0)
    scene: SceneOptions = field(default_factory=SceneOptions)
    visible: float = 0.25
    most: int = 40


@dataclass(frozen=True)
class Clip:
    """T frames and their K objects.

    Attributes:
        frames: (T, 224, 224, 3).
        boxes: (T, K, 4) in pixels, zeros for what is not seen.
    """

    frames: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]


def draw_clip(bank: ObjectBank, rng: np.random.Generator, options: ClipOptions) -> Clip:
    """A random clip."""
    if rng.random() < options.zoomed:
        return _zoomed(bank, rng, options)
    rate = float(rng.uniform(*options.rates))
    scene = replace(options.scene, width=SIZE, height=SIZE, fps=rate, seconds=options.frames / rate)
    video = draw_scene(bank, rng, scene)
    seen = video.visible >= options.visible
    return Clip(video.frames, (video.boxes * seen[..., None])[:, : options.most])


def _zoomed(bank: ObjectBank, rng: np.random.Generator, options: ClipOptions) -> Clip:
    """One photograph with two objects at least, twice the size of a frame, from one random view to another."""
    shown = [index for index, things in enumerate(bank.things) if len(things) > 1]
    index = shown[int(rng.integers(len(shown)))]
    side = 2 * SIZE
    photograph = np.asarray(bank.picture(index).resize((side, side), Image.Resampling.BILINEAR))
    boxes = np.array([thing.box for thing in bank.things[index][: options.most]], np.float32) * side
    # Less than half the side would leave frames that are mostly black.
    first, last = (random_view(rng, side, side, SIZE, (0.5, 1.5)) for _ in range(2))
    video = zoom_photograph(photograph, boxes, first, last, options.frames, SIZE)
    return Clip(video.frames, video.boxes)


class Drawing(Protocol):
    """Draws the clip of a number."""

    def __call__(self, number: int) -> Clip:
        """Clip `number`, the same whenever it is asked for."""


class ClipViews:
    """The frames of clips as numbered views, those of one clip one after another."""

    def __init__(self, draw: Drawing, frames: int) -> None:
        """Take what draws clips of `frames` frames."""
        self._draw, self._frames = draw, frames
        self._last: tuple[int, Clip] | None = None

    def __call__(self, index: int) -> View:
        """View number `index`; a clip is drawn once for views that are asked for in order."""
        number, frame = divmod(index, self._frames)
        if self._last is None or self._last[0] != number:
            self._last = (number, self._draw(number))
        clip = self._last[1]
        return View(clip.frames[frame], clip.boxes[frame])
