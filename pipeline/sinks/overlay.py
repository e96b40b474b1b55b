"""Text on YUV pictures: the caption in a box in the lower third, active queries as chips at the top left.

An overlay is drawn once with PIL and laid over many frames by one multiply-add on the rows it covers, straight in the
planes of a 4:2:0 picture, so that frames need no way through RGB.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Label", "Overlay", "OverlayPainter"]

Planes = Sequence[npt.NDArray[np.uint8]]
"""Y (H, W), U and V (H/2, W/2) of a limited-range picture."""
_U16 = npt.NDArray[np.uint16]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_INK = (255, 255, 255, 255)
_BOX = (12, 14, 18, 178)
# Distinct on film and for colour-blind eyes (Okabe and Ito's palette without black and its darkest blue).
_DOTS = [(86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0)]
_MAX_CAPTION_LINES = 3
_MAX_CHIPS = 6


@dataclass(frozen=True)
class Label:
    """All text that stands on a frame; equal labels give equal overlays."""

    caption: str = ""
    queries: tuple[tuple[str, int], ...] = ()
    """Active queries, each with the number of its colour."""


@dataclass(frozen=True)
class _Patch:
    """A part of one plane: new = (old * keep + add) / 256."""

    rows: slice
    columns: slice
    keep: _U16
    add: _U16

    def apply(self, plane: npt.NDArray[np.uint8]) -> None:
        area = plane[self.rows, self.columns]
        mixed = area * self.keep
        mixed += self.add
        mixed >>= 8
        area[...] = mixed


class Overlay:
    """A drawn label, ready to be laid over pictures of one size."""

    def __init__(self, pictures: list[tuple[tuple[int, int], Image.Image]]) -> None:
        """Prepare RGBA pictures of even size, each with its even (x, y) place, for blending."""
        self._patches = [_patches(image, x, y) for (x, y), image in pictures]

    def apply(self, planes: Planes) -> None:
        """Blend onto the planes in place."""
        for patches in self._patches:
            for patch, plane in zip(patches, planes, strict=True):
                patch.apply(plane)


class OverlayPainter:
    """Draws labels for pictures of one size (even width and height, pixels)."""

    def __init__(self, width: int, height: int) -> None:
        """Choose type sizes for the picture."""
        self._size = (width, height)
        short = min(width, height)
        self._caption_font = ImageFont.load_default(size=max(11, round(short / 18)))
        self._chip_font = ImageFont.load_default(size=max(10, round(short / 26)))
        self._margin = max(4, short // 30)

    def paint(self, label: Label) -> Overlay:
        """Draw ``label``."""
        pictures = []
        if label.caption:
            pictures.append(self._caption(label.caption))
        top = self._margin
        for text, colour in label.queries[:_MAX_CHIPS]:
            chip = self._chip(text, _DOTS[colour % len(_DOTS)])
            if top + chip.height > self._size[1] // 2:  # the lower half belongs to the caption
                break
            pictures.append(((_even(self._margin), _even(top)), chip))
            top += chip.height + self._margin // 2
        return Overlay(pictures)

    def _caption(self, text: str) -> tuple[tuple[int, int], Image.Image]:
        width, height = self._size
        pad = max(3, self._margin // 2)
        lines = wrap(text, self._caption_font, width - 2 * self._margin - 4 * pad, _MAX_CAPTION_LINES)
        block = "\n".join(lines)
        left, upper, right, lower = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
            (0, 0), block, font=self._caption_font, align="center"
        )
        size = (_even_up(min(width, right - left + 4 * pad)), _even_up(min(height, lower - upper + 2 * pad)))
        image = Image.new("RGBA", size, (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=pad, fill=_BOX)
        draw.multiline_text((2 * pad - left, pad - upper), block, font=self._caption_font, fill=_INK, align="center")
        x, y = (width - size[0]) // 2, height - size[1] - self._margin
        return (_even(max(0, x)), _even(max(0, y))), image

    def _chip(self, text: str, dot: tuple[int, int, int]) -> Image.Image:
        pad = max(3, self._margin // 3)
        font = self._chip_font
        line = wrap(text, font, self._size[0] - 2 * self._margin - 10 * pad, 1)[0]
        # Height and baseline from letters with both extenders, so that chips are all alike.
        _, upper, _, lower = font.getbbox("Ág")
        height = _even_up(lower - upper + 2 * pad)
        radius = max(2, (lower - upper) // 4)
        text_x = 2 * pad + 2 * radius + 2 * pad
        image = Image.new("RGBA", (_even_up(text_x + font.getlength(line) + 2 * pad), height), (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, image.width - 1, height - 1), radius=height // 2, fill=_BOX)
        middle = height // 2
        draw.ellipse((2 * pad, middle - radius, 2 * pad + 2 * radius, middle + radius), fill=(*dot, 255))
        draw.text((text_x, pad - upper), line, font=font, fill=_INK)
        return image


def wrap(text: str, font: _Font, width: float, max_lines: int) -> list[str]:
    """Break ``text`` into at most ``max_lines`` lines of ``width`` pixels; what is left over becomes an ellipsis."""
    lines: list[str] = [""]
    words = text.split()
    for position, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) < max_lines:
            lines.append(word)
        else:
            lines[-1] += " " + " ".join(words[position:])
            break
    return [_fit(line, font, width) for line in lines]


def _fit(line: str, font: _Font, width: float) -> str:
    if font.getlength(line) <= width:
        return line
    # No glyph is narrower than a pixel, so longer beginnings need not be measured.
    shown = bisect_right(
        range(min(len(line), int(width))), width, key=lambda n: font.getlength(line[:n].rstrip() + "…")
    )
    return line[: max(0, shown - 1)].rstrip() + "…"


def _patches(image: Image.Image, x: int, y: int) -> tuple[_Patch, _Patch, _Patch]:
    rgba = np.asarray(image, dtype=np.float64)  # (h, w, 4), h and w even
    alpha = rgba[..., 3] / 255
    # BT.601, limited range. The inks are nearly neutral, so the matrix of the video itself makes no visible difference.
    r, g, b = (rgba[..., i] for i in range(3))
    luma = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    blue = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    red = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    # Chroma samples stand for 2 x 2 pixels: average what each of those adds, not colour and opacity apart.
    half = _halve(alpha)
    return (
        _patch(alpha, luma * alpha, x, y),
        _patch(half, _halve(blue * alpha), x // 2, y // 2),
        _patch(half, _halve(red * alpha), x // 2, y // 2),
    )


def _patch(alpha: npt.NDArray[np.float64], premultiplied: npt.NDArray[np.float64], x: int, y: int) -> _Patch:
    height, width = alpha.shape
    keep = np.round(256 * (1 - alpha)).astype(np.uint16)
    add = np.round(256 * premultiplied).astype(np.uint16)  # old * keep + add stays below 2**16
    return _Patch(slice(y, y + height), slice(x, x + width), keep, add)


def _halve(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    height, width = plane.shape
    halved: npt.NDArray[np.float64] = plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return halved


def _even(length: float) -> int:
    return 2 * (int(length) // 2)


def _even_up(length: float) -> int:
    return 2 * -(-int(np.ceil(length)) // 2)
