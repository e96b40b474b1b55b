"""Boxes of objects on YUV pictures: a coloured frame around each, and beside it a chip with its number and words."""

from __future__ import annotations

import colorsys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .blend import BACK, INK, Area, Patches, Planes, even, even_up, lay, patches_of, yuv
from .overlay import wrap
from .paths import Seen

__all__ = ["BoxPainter", "colour_of"]

_CHIPS_KEPT = 128
_MOST_BOXES = 60
"""On one picture; with more, the largest."""


class _Chip(NamedTuple):
    size: tuple[int, int]
    patches: Patches
    """At (0, 0)."""


def colour_of(number: int) -> tuple[int, int, int]:
    """RGB of the object with this number: neighbours in number are far apart in hue, and the same always."""
    hue = number * 0.61803398875 % 1.0  # the golden ratio never comes back to where it was
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.62 + 0.3 * (number % 2), 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


class BoxPainter:
    """Draws boxes on pictures of one size (even width and height, pixels)."""

    def __init__(self, width: int, height: int) -> None:
        """Choose line width and type size for the picture."""
        self._width, self._height = width, height
        short = min(width, height)
        self._line = max(2, even(short / 160))
        self._font = ImageFont.load_default(size=max(9, round(short / 34)))
        self._pad = max(2, short // 120)
        self._chips: OrderedDict[tuple[int, str, str], _Chip] = OrderedDict()

    def paint(self, planes: Planes, objects: Sequence[Seen], taken: Iterable[Area] = ()) -> None:
        """Draw ``objects`` into the planes in place; chips keep clear of each other and of what is ``taken``."""
        chosen = sorted(objects, key=lambda seen: -_size(seen))[:_MOST_BOXES]
        places = {seen.number: self._place(seen) for seen in chosen}
        # Large ones first, so that the frame of a small object lies over that of a large one.
        for seen in chosen:
            self._outline(planes, places[seen.number], colour_of(seen.number))
        occupied = list(taken)
        for seen in reversed(chosen):  # and small ones choose their words' place first: they have fewer
            place = places[seen.number]
            for name, text in ((seen.name, seen.text), (seen.name, ""), ("", "")):
                chip = self._chip(seen.number, name, text)
                free = next((a for a in self._around(place, chip.size) if not any(map(a.meets, occupied))), None)
                if free is not None:
                    occupied.append(free)
                    lay(planes, chip.patches, free.x0, free.y0)
                    break

    def _place(self, seen: Seen) -> Area:
        x0, y0, x1, y1 = seen.box
        left, top = self._clip(x0, self._width), self._clip(y0, self._height)
        right, bottom = self._clip(x1, self._width), self._clip(y1, self._height)
        return Area(left, top, max(right, min(left + 2, self._width)), max(bottom, min(top + 2, self._height)))

    @staticmethod
    def _clip(part: float, length: int) -> int:
        return min(max(even(part * length + 1), 0), length)

    def _outline(self, planes: Planes, place: Area, colour: tuple[int, int, int]) -> None:
        x0, y0, x1, y1 = place
        wide, high = min(self._line, x1 - x0), min(self._line, y1 - y0)
        inks = [round(float(channel)) for channel in yuv(*np.array(colour, np.float64))]
        for plane, scale, ink in zip(planes, (1, 2, 2), inks, strict=True):
            rows, columns = slice(y0 // scale, y1 // scale), slice(x0 // scale, x1 // scale)
            across, down = max(1, wide // scale), max(1, high // scale)
            area = plane[rows, columns]
            area[:down] = area[area.shape[0] - down :] = ink
            area[:, :across] = area[:, area.shape[1] - across :] = ink

    def _around(self, place: Area, size: tuple[int, int]) -> list[Area]:
        """Places of a chip, the best first: above the box, below it, inside at the top, inside at the bottom."""
        width, height = size
        starts = (min(place.x0, self._width - width), max(0, place.x1 - width))
        tops = (place.y0 - height, place.y1, place.y0, place.y1 - height)
        inside = [(x, y) for y in tops for x in starts if x >= 0 and 0 <= y <= self._height - height]
        return [Area(even(x), even(y), even(x) + width, even(y) + height) for x, y in inside]

    def _chip(self, number: int, name: str, text: str) -> _Chip:
        key = (number, name, text)
        chip = self._chips.pop(key, None) or self._draw(number, name, text)
        self._chips[key] = chip
        if len(self._chips) > _CHIPS_KEPT:
            self._chips.popitem(last=False)
        return chip

    def _draw(self, number: int, name: str, text: str) -> _Chip:
        pad, bar = self._pad, max(2, self._pad)
        width = min(self._width, max(60, round(0.36 * self._width))) - 4 * pad - bar
        head = f"{number} {name}".strip()
        lines = wrap(f"{head}: {text}" if text else head, self._font, width, 3 if text else 1)
        block = "\n".join(lines)
        # Letters with both extenders, so that chips of as many lines are alike.
        sample = "\n".join(["Ág"] * len(lines))
        probe = ImageDraw.Draw(Image.new("L", (1, 1)))
        _, upper, _, lower = probe.multiline_textbbox((0, 0), sample, font=self._font)
        left, _, right, _ = probe.multiline_textbbox((0, 0), block, font=self._font)
        size = (even_up(right - left + 4 * pad + bar), even_up(lower - upper + 2 * pad))
        size = min(size[0], self._width), min(size[1], self._height)
        image = Image.new("RGBA", size, BACK)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, bar, size[1]), fill=(*colour_of(number), 255))
        draw.multiline_text((bar + 2 * pad - left, pad - upper), block, font=self._font, fill=INK)
        return _Chip(size, patches_of(image, 0, 0))


def _size(seen: Seen) -> float:
    x0, y0, x1, y1 = seen.box
    return (x1 - x0) * (y1 - y0)
