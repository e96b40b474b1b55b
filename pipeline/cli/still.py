"""Frames of a file by their time, and pictures with boxes on them: what ``ask`` and ``find`` share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..assemble import is_live
from ..errors import OutputError, UsageError
from ..sinks.paths import Box, Seen
from .display import format_time

__all__ = ["Still", "add_source", "check_picture", "draw", "sampled", "shown", "still_at"]

RGB = npt.NDArray[np.uint8]

_SHORT_SIDE = 720
_PICTURES = (".jpg", ".jpeg", ".png")


class Still(NamedTuple):
    """One frame of a video."""

    t: float
    """Media time, seconds."""
    pixels: RGB
    """(H, W, 3) as shown; the short side is at most 720."""


def add_source(parser: argparse.ArgumentParser) -> None:
    """SOURCE, ``--json`` and ``--picture``."""
    parser.add_argument("source", metavar="SOURCE", help="a video file, or a picture")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--picture", metavar="F.jpg", help="write the frame with the box drawn in (.jpg or .png)")


def still_at(source: str, t: float | None) -> Still:
    """The frame that is shown at media time ``t``, by default the first one.

    Raises:
        UsageError: the source is live, or ends before.
        SourceError: it cannot be read.
    """
    _check_file(source)
    from onlooker.operators.decode.random_access import VideoIndex

    index = VideoIndex(source)
    end = max(index.end.t_end, float(index.times[-1]) + 1e-3)  # a file may declare less than it holds
    if t is not None and t >= end:
        raise UsageError(f"{Path(source).name} ends at {format_time(end)}; choose a time before that, not {t:g} s.")
    number = 0 if t is None else max(0, int(np.searchsorted(index.times, t + 1e-6, side="right")) - 1)
    [pixels] = index.frames([number], _size(index.info.height, index.info.width))
    return Still(float(index.times[number]), pixels)


def sampled(source: str, fps: float) -> Iterator[Still]:
    """The frames of a video, so many of each second.

    Raises:
        UsageError: the source is live.
        SourceError: it cannot be read.
    """
    _check_file(source)
    from onlooker.operators.decode.video import open_video

    with open_video(source, rate=fps) as reader:
        size = _size(reader.info.height, reader.info.width)
    with open_video(source, rate=fps, size=size) as reader:
        for frame in reader:
            yield Still(frame.t, frame.pixels)


def check_picture(path: str | None, source: str) -> None:
    """Fail before any work is done where the picture cannot be written.

    Raises:
        UsageError: it is no picture's name, or that of the source.
        OutputError: its folder is missing or may not be written.
    """
    if path is None:
        return
    place = Path(path)
    if place.suffix.lower() not in _PICTURES:
        raise UsageError(f"--picture writes JPEG or PNG; {path!r} should end in .jpg or .png.")
    if os.path.realpath(path) == os.path.realpath(source):
        raise UsageError(f"{path!r} would overwrite the source; choose another path.")
    if not place.parent.is_dir():
        raise OutputError(f"cannot write {path!r}: folder {str(place.parent)!r} does not exist.")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise OutputError(f"cannot write {path!r}: permission denied; choose another path.")


def draw(path: str, still: Still, boxes: Sequence[tuple[Box, str]]) -> None:
    """Write the frame with numbered boxes and their words.

    Raises:
        OutputError: it cannot be written.
    """
    from av.video.frame import VideoFrame
    from PIL import Image

    from ..sinks.boxes import BoxPainter

    height, width = (side - side % 2 for side in still.pixels.shape[:2])
    even = np.ascontiguousarray(still.pixels[:height, :width])
    packed: Any = VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p").to_ndarray()
    luma, chroma = packed[:height], packed[height:].reshape(2, height // 2, width // 2)
    objects = [Seen(number, box, text=words) for number, (box, words) in enumerate(boxes, 1)]
    BoxPainter(width, height).paint((luma, chroma[0], chroma[1]), objects)
    try:
        Image.fromarray(VideoFrame.from_ndarray(packed, format="yuv420p").to_ndarray(format="rgb24")).save(path)
    except OSError as error:
        raise OutputError(f"cannot write {path!r}: {(error.strerror or str(error)).lower()}.") from None


def shown(box: Box) -> str:
    """A box as it is typed."""
    return ",".join(f"{part:.3f}" for part in box)


def _check_file(source: str) -> None:
    if is_live(source):
        raise UsageError(
            "this looks into files; of a camera that is being watched ask with `onlooker tell ask NAME --box ...`."
        )


def _size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, _SHORT_SIDE / min(height, width))
    return max(2, round(height * scale)), max(2, round(width * scale))
