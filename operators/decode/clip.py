"""Clips: pieces of video cut out of compressed packets, nothing encoded anew, each with one picture of it.

The cutting is the same for cameras, whose last packets a ring keeps (`live/ring.py`), and for files (`clip_file.py`).
A clip is made in memory: whoever wants it on a disk may be another process, on another machine.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from ..errors import OnlookerError
from .pixels import Orientation, PixelConverter, preview_size

__all__ = ["CLIP_TAIL", "ClipError", "CutVideo", "Entry", "cut", "picture_of"]

CLIP_TAIL = 1.0
"""Seconds that a clip of an event goes on behind it, as far as they have been seen."""

# Tried one after the other: what plays everywhere, and what holds every codec.
_FORMATS = (("mp4", ".mp4"), ("matroska", ".mkv"))
_JPEG_QUALITY = 85


class ClipError(OnlookerError):
    """A clip cannot be made. One line: why, and what to do."""

    def __init__(self, message: str) -> None:
        """Keep the message."""
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class CutVideo:
    """A clip in memory."""

    video: bytes
    """The file; begins with a key frame."""
    suffix: str
    """`.mp4`, or `.mkv` for codecs that MP4 does not take."""
    t_start: float
    """Media time of its first frame, seconds; up to one key frame interval before what was asked for."""
    t_end: float
    """Media time of its last frame."""
    picture: bytes = b""
    """JPEG of one frame of what was asked for; empty if none can be decoded."""


@dataclass(slots=True)
class Entry:
    """One packet, and the place of its frame once that is known."""

    data: bytes
    key: bool
    pts: int | None
    dts: int | None
    duration: int
    arrival: float
    """Monotonic seconds; any constant for what does not arrive."""
    epoch: int = 0
    """Number of the frame's epoch; 0 while no frame came of the packet."""
    t: float = 0.0
    """Media time in that epoch, seconds."""


def cut(
    template: Any, time_base: Fraction, entries: Sequence[Entry], epoch: int, t_start: float, t_end: float
) -> CutVideo:
    """Make a clip of `entries`, packets in decoding order from a key frame on.

    Args:
        template: libav stream with the packets' parameters.
        time_base: Unit of PTS and DTS, seconds.
        entries: At least one is of `epoch`.
        epoch: The epoch that is asked for.
        t_start: Where the picture may come from: [t_start, t_end) in seconds of its media time.
        t_end: See `t_start`.

    Raises:
        ClipError: no file format takes this kind of video.
    """
    timed = _retime(entries, time_base)
    video, suffix = _mux(template, time_base, timed)
    times = [entry.t for entry in entries if entry.epoch == epoch]
    # From media time to the clock of the file; both run at the same pace.
    ahead = next(float(pts * time_base) - entry.t for entry, pts, _ in timed if entry.epoch == epoch)
    try:
        picture = picture_of(video, t_start + ahead, t_end + ahead)
    except (av.error.FFmpegError, OSError, ValueError, OverflowError):
        picture = b""  # the clip is worth having without one
    return CutVideo(video, suffix, min(times), max(times), picture)


def picture_of(video: bytes, t_start: float, t_end: float) -> bytes:
    """Return a JPEG, upright and with square pixels, of a frame within [t_start, t_end) seconds of a video file.

    It is the key frame nearest to the middle, which looks best and costs least, else the frame in the middle; the last
    frame where the video ends before that, and nothing where no frame can be decoded.

    Raises:
        av.error.FFmpegError: the file cannot be read.
    """
    with av.open(io.BytesIO(video), mode="r") as container:
        stream = container.streams.video[0]
        unit, codec = stream.time_base or Fraction(1, 90_000), stream.codec_context
        middle = (t_start + t_end) / 2
        keys = [float(p.pts * unit) for p in container.demux(stream) if p.is_keyframe and p.pts is not None]
        inside = [t for t in keys if t_start <= t < t_end]
        wanted = min(inside, key=lambda t: abs(t - middle), default=middle)
        container.seek(round(Fraction(wanted) / unit), stream=stream, backward=True)
        codec.thread_count = 1  # the cores have better things to do
        found = None
        for found in container.decode(stream):
            if found.pts is not None and float(found.pts * unit) >= wanted - float(unit):
                break
        return b"" if found is None else _jpeg(found, float(stream.sample_aspect_ratio or 1))


def _jpeg(frame: Any, stored_aspect: float) -> bytes:
    from PIL import Image

    turn = Orientation.of(frame)
    height, width = turn.shown_size(frame.height, frame.width)
    size = preview_size(height, width, 1 / stored_aspect if turn.transpose else stored_aspect, max(2, height, width))
    file = io.BytesIO()
    Image.fromarray(PixelConverter(size, turn)(frame)).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _mux(template: Any, time_base: Fraction, timed: Sequence[tuple[Entry, int, int]]) -> tuple[bytes, str]:
    why = ""
    for container_format, suffix in _FORMATS:
        file = io.BytesIO()
        try:
            with av.open(file, "w", format=container_format) as container:
                stream = container.add_stream_from_template(template, opaque=True)
                for entry, pts, dts in timed:
                    packet: Any = av.Packet(entry.data)
                    packet.stream, packet.time_base = stream, time_base
                    packet.pts, packet.dts, packet.duration = pts, dts, entry.duration
                    packet.is_keyframe = entry.key
                    container.mux(packet)
            return file.getvalue(), suffix
        except (av.error.FFmpegError, ValueError, OverflowError) as error:  # times may be any 64 bits
            why = getattr(error, "strerror", None) or type(error).__name__
    raise ClipError(f"this kind of video goes into no clip ({why})")


def _retime(entries: Sequence[Entry], time_base: Fraction) -> list[tuple[Entry, int, int]]:
    """Give every packet a PTS and an increasing DTS, from zero on.

    The first packets of RTSP often have none, those of MJPEG over HTTP never: these follow each other as they arrived.
    Where a new epoch begins, the clock may have jumped; in the clip it goes on.
    """
    step = next((entry.duration for entry in entries if entry.duration), 1)
    known = next((i for i, entry in enumerate(entries) if entry.dts is not None), len(entries))
    shift = -(entries[known].dts or 0) + known * step if known < len(entries) else 0
    timed: list[tuple[Entry, int, int]] = []
    last, epoch = -1, 0
    anchor, arrival = 0, entries[0].arrival  # of the last packet that had a time
    for i, entry in enumerate(entries):
        if entry.dts is None:
            dts = anchor + round(Fraction(entry.arrival - arrival) / time_base)
            if i < known < len(entries):
                dts = i * step
        else:
            if epoch and entry.epoch not in (0, epoch):
                shift = last + step - entry.dts
            dts = anchor = entry.dts + shift
            arrival = entry.arrival
        dts = max(dts, last + 1)
        timed.append((entry, dts if entry.pts is None else max(dts, entry.pts + shift), dts))
        last, epoch = dts, entry.epoch or epoch
    return timed
