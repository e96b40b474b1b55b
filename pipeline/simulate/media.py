"""The pictures of a simulated camera: a file read over and over, its packets copied or encoded anew."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame

from onlooker.operators.decode.container import open_container, pick_stream
from onlooker.operators.decode.errors import SourceError

from . import nal
from .encode import Encoder
from .formats import Codec, Format, Wish
from .rtp import CLOCK_RATE

__all__ = ["AccessUnit", "Media"]

_COPIED: dict[str, nal.NalCodec] = {"h264": "h264", "hevc": "h265"}
_FALLBACK_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded picture. Times are ticks of 90 kHz from the first picture on, continuous where the file starts over."""

    parts: tuple[bytes, ...]  # NAL units without start codes, or one JPEG picture
    key: bool
    pts: int
    dts: int


class Media:
    """Coded pictures in decoding order, beginning with a key frame.

    Blocks while reading and encoding; use from one thread at a time.
    """

    def __init__(self, path: str | Path, wish: Wish, *, loop: bool = True) -> None:
        """Read up to the first picture.

        Raises:
            SourceError: the file cannot be read.
            UsageError: the wished codec or size cannot be made.
        """
        self._path, self._loop = path, loop
        codec, self._rate, size, extradata, copyable = self._probe()
        self._wished_rate = Fraction(wish.rate).limit_denominator(1001) if wish.rate else None
        self._encoder: Encoder | None = None
        first: AccessUnit | None = None
        if copyable and wish in (Wish(copyable), Wish()):
            self._units = self._copied(copyable, extradata)
            first = next(self._units, None)
            if first and not nal.parameter_sets(copyable, first.parts):  # no client could begin
                self._units.close()
                first = None
        if first is None:
            self._encoder = Encoder(wish.codec or codec, wish.size or size, wish.rate or self._rate)
            self._units = self._encoded()
            first = next(self._units, None)
        if first is None:
            raise SourceError("no_frames", f"{Path(path).name}: holds no picture that can be read; check the file")
        self._first: AccessUnit | None = first
        if self._encoder:
            codec, size = self._encoder.codec, self._encoder.size
        sets = () if codec == "mjpeg" else nal.parameter_sets(codec, first.parts)
        self.format = Format(codec, *size, float(wish.rate or self._rate), sets)

    def next(self) -> AccessUnit | None:
        """Return the next picture, None after the last one."""
        first, self._first = self._first, None
        return first or next(self._units, None)

    def want_key(self) -> None:
        """Ask for a key frame; encoded pictures begin with one at once, copied ones where the file has one."""
        if self._encoder:
            self._encoder.want_key()

    def close(self) -> None:
        """Close the file."""
        self._units.close()

    def _probe(self) -> tuple[Codec, Fraction, tuple[int, int], bytes, nal.NalCodec | None]:
        """Return nearest codec, rate, size, decoder configuration, and the codec if packets may be copied."""
        with open_container(self._path) as container:
            stream = pick_stream(container, Path(self._path).name, None)
            context: Any = stream.codec_context
            if context is None or not context.width:
                raise SourceError(
                    "not_a_video", f"{Path(self._path).name}: no decoder for this video; convert it to H.264"
                )
            rate = stream.average_rate or stream.guessed_rate or _FALLBACK_RATE
            name, extradata = context.name, bytes(context.extradata or b"")
            codec = _COPIED.get(name)
            packet = next(_readable(container.demux(stream)), None)
            # Without presentation times (raw streams, AVI) only decoding tells the order of the pictures.
            timed = packet is not None and packet.pts is not None and packet.dts is not None
            nearest: Codec = "mjpeg" if name == "mjpeg" else codec or "h264"
            return nearest, rate, (context.width, context.height), extradata, codec if timed else None

    def _passes(self) -> Iterator[tuple[Any, Any]]:
        """Open the file again and again, or once."""
        while True:
            with open_container(self._path) as container:
                yield container, pick_stream(container, Path(self._path).name, None)
            if not self._loop:
                return

    def _copied(self, codec: nal.NalCodec, extradata: bytes) -> Generator[AccessUnit, None, None]:
        shift = 0
        configured = nal.parameter_sets(codec, nal.units_of_extradata(codec, extradata))
        for container, stream in self._passes():
            first, end = None, 0
            for packet in _readable(container.demux(stream)):
                if not packet.size or packet.pts is None or packet.dts is None:
                    continue
                pts, dts = _ticks(packet.pts, packet.time_base), _ticks(packet.dts, packet.time_base)
                if first is None and packet.is_keyframe:
                    first = pts
                if first is None or pts < first:  # needs pictures before the first key frame
                    continue
                units = nal.split(codec, bytes(packet), extradata)
                if packet.is_keyframe and not any(nal.is_parameter_set(codec, unit) for unit in units):
                    units = [*configured, *units]
                yield AccessUnit(tuple(units), packet.is_keyframe, shift + pts - first, shift + dts - first)
                step = _ticks(packet.duration, packet.time_base) if packet.duration else self._step
                end = max(end, pts - first + step)
            if not end:
                return
            shift += end

    def _encoded(self) -> Generator[AccessUnit, None, None]:
        assert self._encoder
        for ticks, frame in self._timed_frames():
            for key, data in self._encoder.encode(frame, ticks):
                codec = self._encoder.codec
                parts = (data,) if codec == "mjpeg" else tuple(nal.split(codec, data, b""))
                yield AccessUnit(parts, key, ticks, ticks)

    def _timed_frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """Decode; with a wished rate, slot k gets the first frame at or after its time."""
        shift = slot = 0
        for container, stream in self._passes():
            first, end = None, 0
            stream.codec_context.thread_count = 1
            for frame in _readable(container.decode(stream)):
                pts = end if frame.pts is None else _ticks(frame.pts, frame.time_base)
                first = pts if first is None else first
                pts = max(pts - first, end - self._step + 1) if end else 0  # never back, whatever the file says
                end = pts + self._step
                if self._wished_rate is None:
                    yield shift + pts, frame
                    continue
                while (at := round(slot * CLOCK_RATE / self._wished_rate)) <= shift + pts:
                    yield at, frame
                    slot += 1
            if not end:
                return
            shift += end

    @property
    def _step(self) -> int:
        return max(round(CLOCK_RATE / self._rate), 1)


def _ticks(value: int, time_base: Fraction) -> int:
    return round(value * time_base * CLOCK_RATE)


def _readable(items: Iterator[Any]) -> Iterator[Any]:
    """Yield up to damage; a camera then starts the file over."""
    while True:
        try:
            item = next(items, None)
        except (av.error.FFmpegError, OSError):
            return
        if item is None:
            return
        yield item
