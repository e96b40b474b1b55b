"""Blending RGBA pictures into YUV 4:2:0 planes: one multiply-add on the rows they cover, no way through RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["BACK", "INK", "Area", "Patch", "Patches", "Planes", "even", "even_up", "lay", "patches_of", "yuv"]

Planes = Sequence[npt.NDArray[np.uint8]]
"""Y (H, W), U and V (H/2, W/2) of a limited-range picture."""
_U16 = npt.NDArray[np.uint16]
_Channel = npt.NDArray[np.float64]

INK = (255, 255, 255, 255)
"""RGBA of letters."""
BACK = (12, 14, 18, 178)
"""RGBA of what is behind them."""


class Area(NamedTuple):
    """A rectangle of a picture, pixels, the upper ends not included."""

    x0: int
    y0: int
    x1: int
    y1: int

    def meets(self, other: Area) -> bool:
        """Whether the two have a pixel in common."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


@dataclass(frozen=True)
class Patch:
    """A part of one plane: new = (old * keep + add) / 256."""

    rows: slice
    columns: slice
    keep: _U16
    add: _U16

    def apply(self, plane: npt.NDArray[np.uint8]) -> None:
        """Blend onto the plane in place."""
        area = plane[self.rows, self.columns]
        mixed = area * self.keep
        mixed += self.add
        mixed >>= 8
        area[...] = mixed


Patches = tuple[Patch, Patch, Patch]
"""Of Y, U and V."""


def lay(planes: Planes, patches: Patches, x: int = 0, y: int = 0) -> None:
    """Blend onto the planes in place, moved by the even (x, y)."""
    for patch, plane, scale in zip(patches, planes, (1, 2, 2), strict=True):
        patch.apply(plane[y // scale :, x // scale :])


def yuv(r: _Channel, g: _Channel, b: _Channel) -> tuple[_Channel, _Channel, _Channel]:
    """Y, U, V in limited range of red, green and blue from 0 to 255.

    BT.601. The inks are few and plain, so the matrix of the video itself makes no visible difference.
    """
    luma = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    blue = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    red = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return luma, blue, red


def patches_of(image: Image.Image, x: int, y: int) -> Patches:
    """An RGBA picture of even size, ready to be blended at the even place (x, y)."""
    rgba = np.asarray(image, dtype=np.float64)  # (h, w, 4), h and w even
    alpha = rgba[..., 3] / 255
    luma, blue, red = yuv(rgba[..., 0], rgba[..., 1], rgba[..., 2])
    # Chroma samples stand for 2 x 2 pixels: average what each of those adds, not colour and opacity apart.
    half = _halve(alpha)
    return (
        _patch(alpha, luma * alpha, x, y),
        _patch(half, _halve(blue * alpha), x // 2, y // 2),
        _patch(half, _halve(red * alpha), x // 2, y // 2),
    )


def _patch(alpha: npt.NDArray[np.float64], premultiplied: npt.NDArray[np.float64], x: int, y: int) -> Patch:
    height, width = alpha.shape
    keep = np.round(256 * (1 - alpha)).astype(np.uint16)
    add = np.round(256 * premultiplied).astype(np.uint16)  # old * keep + add stays below 2**16
    return Patch(slice(y, y + height), slice(x, x + width), keep, add)


def _halve(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    height, width = plane.shape
    halved: npt.NDArray[np.float64] = plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return halved


def even(length: float) -> int:
    """The length in whole pixels, rounded down to an even number."""
    return 2 * (int(length) // 2)


def even_up(length: float) -> int:
    """The length in whole pixels, rounded up to an even number."""
    return 2 * -(-int(np.ceil(length)) // 2)
