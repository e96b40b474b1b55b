"""Clips of video files."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from .clip import ClipError, CutVideo, Entry, cut
from .container import open_container, pick_stream
from .errors import SourceError
from .timeline import clock_rule

__all__ = ["cut_file"]

_EPOCH = 1


def cut_file(
    path: str | Path,
    t_start: float,
    t_end: float,
    *,
    tail: float = 0.0,
    video_stream: int | None = None,
    max_bytes: int = 64 << 20,
) -> CutVideo:
    """Cut [t_start, t_end + tail) out of a video file, seconds of media time, from the key frame before it on.

    Args:
        path: The file.
        t_start: Seconds, on the clock of `open_video`.
        t_end: Seconds.
        tail: Seconds that the clip goes on behind what is asked for.
        video_stream: Number among the video streams, None for the best one.
        max_bytes: Where the clip is cut off at the latest.

    Raises:
        ClipError: there is nothing at this time, or it cannot be cut.
    """
    name = Path(path).name
    try:
        origin = _origin(path, video_stream)
        # A seek may land behind its target where the file has no index; then the file is read from its beginning.
        for seek in (True, False):
            with open_container(path) as container:
                stream = pick_stream(container, name, video_stream)
                unit = stream.time_base or Fraction(1, 90_000)
                first, last = (origin + round(Fraction(t) / unit) for t in (t_start, t_end + tail))
                if seek:
                    container.seek(first, stream=stream, backward=True)
                entries = _span(container.demux(stream), first, last, max_bytes, exact=seek)
                if entries:
                    for entry in entries:
                        ticks = entry.dts if entry.pts is None else entry.pts
                        entry.epoch, entry.t = _EPOCH, float(((ticks or 0) - origin) * unit)
                    return cut(stream, unit, entries, _EPOCH, t_start, t_end)
    except SourceError as error:
        raise ClipError(str(error)) from None
    except (av.error.FFmpegError, OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ClipError(f"{name}: cannot be cut ({why})") from None
    raise ClipError(f"{name}: shows nothing at this time")


def _origin(path: str | Path, video_stream: int | None) -> int:
    """Ticks at which media time is zero.

    Raises:
        ClipError: the file tells in which order its pictures are decoded, but not when they are shown.
    """
    with open_container(path) as container:
        stream = pick_stream(container, Path(path).name, video_stream)
        rule = clock_rule(container.format.name)
        if rule == "presentation":
            return 0
        if rule == "decode_order" and stream.codec_context.has_b_frames:
            raise ClipError(f"{Path(path).name}: tells no times of its pictures; convert it to MP4 or MKV for clips")
        return next((ticks for packet in container.demux(stream) if (ticks := _ticks(packet)) is not None), 0)


def _ticks(packet: Any) -> int | None:
    ticks: int | None = packet.dts if packet.pts is None else packet.pts
    return ticks


def _span(packets: Iterable[Any], first: int, last: int, max_bytes: int, *, exact: bool) -> list[Entry]:
    """Packets from the last key frame at or before `first` up to `last`, ticks, in decoding order.

    Args:
        packets: From an earlier key frame on.
        first: See above.
        last: See above.
        max_bytes: Largest size.
        exact: Nothing will do that begins later than `first`.
    """
    entries: list[Entry] = []
    size = 0
    for packet in packets:
        ticks, key = _ticks(packet), bool(packet.is_keyframe)
        if ticks is None or not packet.size:
            continue
        if key and ticks <= first:
            entries, size = [], 0
        elif not entries and key and exact:
            break
        elif not entries and not key:
            continue
        size += packet.size
        # Reordered frames that are shown before the end may be stored behind one that is shown after it.
        if size > max_bytes or (entries and (ticks if packet.dts is None else packet.dts) >= last):
            break
        entries.append(Entry(bytes(packet), key, packet.pts, packet.dts, packet.duration or 0, 0.0))
    # Before the first key frame, or behind the end of the file, there is a key frame but nothing of the span.
    return entries if any(first <= (_ticks(entry) or 0) < last for entry in entries) else []
