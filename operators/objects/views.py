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
    """An object cut out of a frame.

    Attributes:
        pixels: (H, W, 3) uint8, the object and perhaps what is beside it.
        clear: pixels of the object's box that no other object's box covers.
        size: all pixels of its box.
    """

    pixels: Pixels
    clear: int
    size: int


View = npt.NDArray[np.float16] | Cutout
"""A region's tokens (R, D), or a cut-out."""
