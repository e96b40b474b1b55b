"""Values of arguments that several commands take: times and places."""

from __future__ import annotations

import argparse

from ..sinks.paths import Box

__all__ = ["moment", "region"]


def moment(text: str) -> float:
    """Seconds of a time such as ``12.5``, ``12.5s``, ``0:12.5`` or ``1:02:03``; for argparse."""
    parts = text.strip().removesuffix("s").split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    whole = all(part.isdigit() for part in parts[:-1])
    if not 1 <= len(values) <= 3 or not whole or not all(0 <= value < 1e9 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write seconds, as 12.5 or 12.5s, or 0:12.5")
    if any(value >= 60 for value in values[1:]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; after a colon stand numbers below 60")
    return float(sum(value * 60**place for place, value in enumerate(reversed(values))))


def region(text: str) -> Box:
    """A box ``x0,y0,x1,y1`` in parts of the picture, from 0 to 1; for argparse."""
    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(0 <= part <= 1 for part in box):
        raise argparse.ArgumentTypeError(f"{text!r} is no box; write X0,Y0,X1,Y1 as parts of the picture, from 0 to 1")
    x0, y0, x1, y1 = box
    if x0 >= x1 or y0 >= y1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is empty; X0 must lie left of X1, and Y0 above Y1 (0 is the top left of the picture)"
        )
    return x0, y0, x1, y1
