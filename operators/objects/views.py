"""What captions of objects are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Cutout", "Pixels", "View"]

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """An object cut out of a frame, with what is around it.

    Attributes:
        pixels: (H, W, 3) uint8.
        place: left, top, right and bottom of the object in them.
    """

    pixels: Pixels
    place: tuple[int, int, int, int]

    @property
    def tight(self) -> Pixels:
        """The object alone."""
        left, top, right, bottom = self.place
        return self.pixels[top:bottom, left:right]


View = npt.NDArray[np.float16] | Cutout
"""A region's tokens (R, D), or a cut-out."""
