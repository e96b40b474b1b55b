"""What pictures can be, and what somebody wants them to be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError

__all__ = ["Codec", "Format", "Wish", "parse_size"]

Codec = Literal["h264", "h265", "mjpeg"]


@dataclass(frozen=True)
class Wish:
    """What the pictures should be; None keeps what the file has."""

    codec: Codec | None = None
    size: tuple[int, int] | None = None  # width, height
    rate: float | None = None  # pictures per second


@dataclass(frozen=True)
class Format:
    """What the pictures are."""

    codec: Codec
    width: int
    height: int
    rate: float
    parameter_sets: tuple[bytes, ...]  # (VPS,) SPS, PPS; () for MJPEG

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.codec} {self.width}x{self.height} at {self.rate:g} fps"


def parse_size(text: str) -> tuple[int, int]:
    """Read ``640x480``.

    Raises:
        UsageError: it is not written so.
    """
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if match is None:
        raise UsageError(f"size {text!r}: write WIDTHxHEIGHT in pixels, for example 640x480.")
    return int(match[1]), int(match[2])
