"""Text on YUV pictures: the caption in a box in the lower third, active queries as chips at the top left.

An overlay is drawn once with PIL and laid over many frames by one multiply-add on the rows it covers, straight in the
planes of a 4:2:0 picture, so that frames need no way through RGB.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from .blend import BACK, INK, Area, Planes, even, even_up, lay, patches_of
from .paths import Seen

__all__ = ["Label", "Overlay", "OverlayPainter", "wrap"]

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Distinct on film and for colour-blind eyes (Okabe and Ito's palette without black and its darkest blue).
_DOTS = [(86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0)]
_MAX_CAPTION_LINES = 3
_MAX_CHIPS = 6


@dataclass(frozen=True)
class Label:
    """All that stands on a frame; equal labels give equal overlays."""

    caption: str = ""
    queries: tuple[tuple[str, int], ...] = ()
    """Active queries, each with the number of its colour."""
    objects: tuple[Seen, ...] = ()
    """Tracked objects, which `BoxPainter` draws; `OverlayPainter` leaves them to it."""


class Overlay:
    """A drawn label, ready to be laid over pictures of one size."""

    def __init__(self, pictures: list[tuple[tuple[int, int], Image.Image]]) -> None:
        """Prepare RGBA pictures of even size, each with its even (x, y) place, for blending."""
        self.areas = tuple(Area(x, y, x + image.width, y + image.height) for (x, y), image in pictures)
        """What it covers."""
        self._patches = [patches_of(image, x, y) for (x, y), image in pictures]

    def apply(self, planes: Planes) -> None:
        """Blend onto the planes in place."""
        for patches in self._patches:
            lay(planes, patches)


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
            pictures.append(((even(self._margin), even(top)), chip))
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
        size = (even_up(min(width, right - left + 4 * pad)), even_up(min(height, lower - upper + 2 * pad)))
        image = Image.new("RGBA", size, (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=pad, fill=BACK)
        draw.multiline_text((2 * pad - left, pad - upper), block, font=self._caption_font, fill=INK, align="center")
        x, y = (width - size[0]) // 2, height - size[1] - self._margin
        return (even(max(0, x)), even(max(0, y))), image

    def _chip(self, text: str, dot: tuple[int, int, int]) -> Image.Image:
        pad = max(3, self._margin // 3)
        font = self._chip_font
        line = wrap(text, font, self._size[0] - 2 * self._margin - 10 * pad, 1)[0]
        # Height and baseline from letters with both extenders, so that chips are all alike.
        _, upper, _, lower = font.getbbox("Ág")
        height = even_up(lower - upper + 2 * pad)
        radius = max(2, (lower - upper) // 4)
        text_x = 2 * pad + 2 * radius + 2 * pad
        image = Image.new("RGBA", (even_up(text_x + font.getlength(line) + 2 * pad), height), (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, image.width - 1, height - 1), radius=height // 2, fill=BACK)
        middle = height // 2
        draw.ellipse((2 * pad, middle - radius, 2 * pad + 2 * radius, middle + radius), fill=(*dot, 255))
        draw.text((text_x, pad - upper), line, font=font, fill=INK)
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
