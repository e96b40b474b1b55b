"""Photographs with boxes and captions, of which videos with known objects are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from onlooker.training.flickr import read_split

__all__ = ["ObjectBank", "Thing"]

Picture = Path | npt.NDArray[np.uint8]

_STORED = 224.0
"""Side in pixels of the stored photographs, to which `pseudo_boxes.json` refers."""


@dataclass(frozen=True)
class Thing:
    """A box in a photograph."""

    photograph: int
    box: tuple[float, float, float, float]
    """(x0, y0, x1, y1) as shares of the photograph."""
    kind: str
    """The teacher's class."""


class ObjectBank:
    """Photographs, what they show and what is said about them; pictures are read as they are used.

    Attributes:
        files: names of the P photographs.
        captions: per photograph its sentences.
        things: per photograph its boxes.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        files: Sequence[str],
        captions: Sequence[tuple[str, ...]],
        things: Sequence[tuple[Thing, ...]],
    ) -> None:
        """Take image files or (H, W, 3) uint8 arrays, and what is known about each of them."""
        if not len(pictures) == len(files) == len(captions) == len(things) > 0:
            raise ValueError(
                f"need a name, captions and boxes for each photograph and at least one, got {len(pictures)} pictures, "
                f"{len(files)} names, {len(captions)} captions, {len(things)} lists of boxes"
            )
        self.files, self.captions, self.things = tuple(files), tuple(captions), tuple(things)
        self._pictures = tuple(pictures)
        self.picture = lru_cache(maxsize=512)(self._read)
        self.cuttable = lru_cache(maxsize=8)(self._cuttable)
        self.plain = lru_cache(maxsize=8)(self._plain)

    @classmethod
    def flickr(cls, root: str | Path, split: str, min_score: float = 0.4) -> ObjectBank:
        """Open a Flickr8k split with the teacher's boxes of at least `min_score`.

        Raises:
            ValueError: there is no such split.
            FileNotFoundError: the folder lacks `flickr8k/` or its `pseudo_boxes.json`.
        """
        photographs = read_split(Path(root), split)
        rows = json.loads((Path(root) / "flickr8k" / "pseudo_boxes.json").read_text(encoding="utf-8"))["boxes"]
        things = [
            tuple(
                Thing(p, (x0 / _STORED, y0 / _STORED, x1 / _STORED, y1 / _STORED), kind)
                for kind, score, x0, y0, x1, y1 in rows.get(file, [])
                if score >= min_score and x1 > x0 and y1 > y0
            )
            for p, file in enumerate(photographs.files)
        ]
        pictures = [photographs.images / file for file in photographs.files]
        return cls(pictures, photographs.files, photographs.captions, things)

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.files)

    def pixels(self, photograph: int) -> npt.NDArray[np.uint8]:
        """Return (H, W, 3) uint8 RGB."""
        return np.asarray(self.picture(photograph))

    def _cuttable(self, low: float, high: float) -> tuple[Thing, ...]:
        """Return the things whose area is a share from `low` to `high` of their photograph, in order."""
        return tuple(thing for things in self.things for thing in things if low <= _area(thing) <= high)

    def _plain(self, most: int) -> tuple[int, ...]:
        """Return the photographs that show at most so many things."""
        return tuple(p for p, things in enumerate(self.things) if len(things) <= most)

    def _read(self, photograph: int) -> Image.Image:
        source = self._pictures[photograph]
        if not isinstance(source, Path):
            return Image.fromarray(source)
        with Image.open(source) as image:
            return image.convert("RGB")


def _area(thing: Thing) -> float:
    x0, y0, x1, y1 = thing.box
    return (x1 - x0) * (y1 - y0)
