"""From a decoded libav frame to RGB arrays: one swscale conversion, then turns and mirrors of the small result."""

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
"""Pixels (H, W, 3) uint8, red green blue."""


@dataclass(frozen=True)
class Orientation:
    """How stored pixels are shown: transposed first, then mirrored."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> "Orientation":
        """Read the display matrix of a frame (MP4 track header, Matroska projection, EXIF); upright without one.

        The matrix maps a stored pixel (x, y) to (a x + c y, b x + d y). It is rounded to the nearest of the eight
        turns and mirrors of a rectangle.
        """
        side_data: Any = frame.side_data
        matrix = side_data.get(SideDataType.DISPLAYMATRIX)
        if matrix is None:
            return cls()
        a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, flip_rows=b < 0, flip_columns=c < 0)
        return cls(flip_rows=d < 0, flip_columns=a < 0)

    def apply(self, pixels: RGB) -> RGB:
        """Return (H, W, 3) as shown; (W, H, 3) where the picture is transposed."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        if self.flip_rows:
            pixels = pixels[::-1]
        if self.flip_columns:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)

    def shown_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) as shown of a stored (height, width); the map is its own inverse."""
        return (width, height) if self.transpose else (height, width)


class PixelConverter:
    """Scales and converts frames to one fixed size (height, width) as shown, without keeping the aspect ratio."""

    def __init__(self, size: tuple[int, int], orientation: Orientation) -> None:
        """Prepare for frames of any size; `size` is (height, width) as shown."""
        height, width = size
        if height < 1 or width < 1:
            raise ValueError(f"frame size must be positive, got height {height}, width {width}")
        self._stored = orientation.shown_size(height, width)
        self._orientation = orientation
        self._reformatter = VideoReformatter()  # keeps its swscale context from frame to frame

    def __call__(self, frame: VideoFrame) -> RGB:
        """Return the frame as (height, width, 3) uint8 RGB."""
        height, width = self._stored
        # Bicubic widens its support when it shrinks, like the antialiased resizing that image towers are trained
        # with. One thread: a conversion takes about a millisecond and the cores are for the models.
        small: Any = self._reformatter.reformat(
            frame, width, height, format="rgb24", interpolation="BICUBIC", threads=1
        )
        return self._orientation.apply(small.to_ndarray())


def preview_size(height: int, width: int, pixel_aspect: Fraction | float | None, short_side: int) -> tuple[int, int]:
    """Return (height, width) of a preview of a shown picture, with square pixels and even sides.

    The short side becomes `short_side`, or stays where the picture is smaller. `pixel_aspect` is the width of a
    shown pixel over its height.
    """
    if short_side < 2:
        raise ValueError(f"preview short side must be at least 2 pixels, got {short_side}")
    shown_width = width * float(pixel_aspect or 1)
    scale = min(1.0, short_side / min(height, shown_width))
    return _even(height * scale), _even(shown_width * scale)


def _even(length: float) -> int:
    # Video encoders with 4:2:0 colour take even sides only.
    return max(2, 2 * round(length / 2))
