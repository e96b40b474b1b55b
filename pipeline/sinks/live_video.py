"""What was watched of a live stream, with what was seen written on it: an annotated MP4.

A live source cannot be read a second time, so the video is made of the previews that passed by: as many as were
sampled, at their size (``-o decode.preview=720`` for larger ones). They wait until what may stand on them has been
told. Time is seconds since watching began; where there was no picture, the video is black and says so.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from onlooker.operators.contract import End, SourceInfo
from onlooker.operators.events import Event
from onlooker.operators.packets import Frame, Packet

from .annotated import AnnotatedWriter, LabelTrack, check_encoder, errors_of_libav
from .output import StreamFileSink
from .overlay import Label

__all__ = ["LiveVideoSink"]

RGB = npt.NDArray[np.uint8]

_MOST_HELD = 256 << 20
"""Bytes of frames that wait; beyond it the oldest are written, with what is known by then."""
_GAP = 2.0
"""Seconds without a picture, between two epochs, that are worth a word."""
_LONGEST = 3600.0
"""Seconds that one frame may stand: MP4 has 32 bits for it, 13 hours."""


class LiveVideoSink(StreamFileSink):
    """H.264 in MP4 of the previews of one live stream. Another size in a later epoch is fitted into the first one."""

    ports: ClassVar[tuple[str, ...]] = ("previews",)

    def __init__(
        self, path: str | Path, *, delay: float = 12.0, rate: float | None = None, preset: str = "ultrafast"
    ) -> None:
        """Remember where to write.

        Args:
            path: the MP4 file.
            delay: seconds of media time to stay behind the run; at least the longest time from the beginning of a
                caption, a query event or a track to its first telling, i.e. the caption interval.
            rate: frames per second to be expected, None if unknown; sets how many frames go from key frame to key
                frame, and how long an object that was missed in a frame is still drawn.
            preset: x264's trade of speed for size.
        """
        super().__init__(path)
        self._delay = delay
        self._rate = Fraction(rate or 25.0).limit_denominator(1001)
        self._preset = preset
        self._labels = LabelTrack(1 / rate if rate else 0.5)
        self._waiting: deque[tuple[float, RGB]] = deque()
        self._held = 0
        self._seen_until = 0.0
        """End of the latest epoch, or of what was seen of it."""
        self._in_epoch = False
        """Whether a picture of the open epoch has come."""
        self._shape: tuple[int, int] | None = None
        """(height, width) of the first picture."""
        self._writer: AnnotatedWriter | None = None

    def open(self) -> None:
        """Check the path and the encoder. See ``Sink.open``."""
        check_encoder()
        super().open()

    def _begin(self, info: SourceInfo, uri: str) -> None:
        self._writer = AnnotatedWriter(self.path, self._rate, Fraction(1), self._preset)

    def epoch(self, stream: str, zero: float) -> None:
        """Write the rest of the epoch before. See ``Sink.epoch``."""
        self._write_until(math.inf)
        self._in_epoch = False
        super().epoch(stream, zero)

    def packets(self, port: str, packets: Sequence[Packet]) -> None:
        """Take in pictures. See ``Sink.packets``."""
        for packet in packets:
            assert isinstance(packet, Frame)
            t = self._zero + packet.t
            if not self._in_epoch:
                self._in_epoch = True
                self._shape = self._shape or (packet.pixels.shape[0], packet.pixels.shape[1])
                self._tell_gap(t)
            self._waiting.append((t, packet.pixels.copy()))  # it may be a view of a buffer that holds more
            self._held += packet.pixels.nbytes
            self._seen_until = max(self._seen_until, t)
        while self._held > _MOST_HELD:
            self._write_until(math.nextafter(self._waiting[0][0], math.inf))

    def event(self, event: Event) -> None:
        """Note what to draw. See ``Sink.event``."""
        self._labels.add(event, self._zero)

    def advance(self, t: float) -> None:
        """Write up to ``delay`` before ``t``. See ``Sink.advance``."""
        self._seen_until = max(self._seen_until, self._zero + t)
        self._write_until(self._zero + t - self._delay)

    def finish(self, stream: str, end: End) -> None:
        """Write the rest. See ``Sink.finish``."""
        self._write_until(math.inf)

    def _complete(self) -> None:
        assert self._writer is not None
        try:
            self._write_until(math.inf)
        finally:
            with errors_of_libav():
                self._writer.close()
            if not self.path.stat().st_size:
                self.path.unlink()  # not one frame: no file is better than one that no player opens

    def _write_until(self, until: float) -> None:
        while self._waiting and self._waiting[0][0] < until:
            t, pixels = self._waiting.popleft()
            self._held -= pixels.nbytes
            self._write(t, pixels, self._labels.at(t))
        self._labels.forget(until)

    def _tell_gap(self, until: float) -> None:
        """Say that there was no picture between the epoch before, or the beginning, and ``until``."""
        assert self._shape is not None
        t, black = self._seen_until, np.zeros((*self._shape, 3), np.uint8)
        while until - t > _GAP:
            self._write(t, black, Label("no picture"))
            t = min(t + _LONGEST, until)

    def _write(self, t: float, pixels: RGB, label: Label) -> None:
        assert self._writer is not None and self._shape is not None
        frame = VideoFrame.from_ndarray(_padded(pixels, self._shape[1] / self._shape[0]), format="rgb24")
        with errors_of_libav():
            self._writer.write(t, frame, label)


def _padded(pixels: RGB, aspect: float) -> RGB:
    """The picture with black bars, so that its width over its height is ``aspect``."""
    height, width = pixels.shape[:2]
    rows, columns = max(0, round(width / aspect) - height), max(0, round(height * aspect) - width)
    if rows + columns <= 1:  # as after rounding
        return np.ascontiguousarray(pixels)
    bars = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    return np.pad(pixels, bars)
