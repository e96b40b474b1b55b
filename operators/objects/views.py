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
        pixels: (H, W, 3) uint8.
        clear: share of it that no other object's box covers, from 0 to 1.
    """

    pixels: Pixels
    clear: float = 1.0


View = npt.NDArray[np.float16] | Cutout
"""A region's tokens (R, D), or a cut-out."""
