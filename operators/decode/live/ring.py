"""The last seconds of a live stream as compressed packets, from which clips are cut without encoding anew."""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from ...errors import OnlookerError

__all__ = ["Clip", "ClipError", "Entry", "PacketRing"]

# Packets of these hold no compressed video, the first not even pixels but a pointer to them.
_NOT_COMPRESSED = {"wrapped_avframe", "rawvideo"}
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# What a packet costs beside its bytes.
_OVERHEAD = 300


class ClipError(OnlookerError):
    """A clip cannot be written. One line: why, and what to do."""

    def __init__(self, message: str) -> None:
        """Keep the message."""
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that was written."""

    path: Path
    t_start: float
    """Event time of its first frame, a key frame; up to one key frame interval before what was asked for."""
    t_end: float
    """Event time of its last frame."""
    bytes: int


@dataclass(slots=True)
class Entry:
    """One packet, and the place of its frame once that is decoded."""

    data: bytes
    key: bool
    pts: int | None
    dts: int | None
    duration: int
    arrival: float
    epoch: int = 0
    """Number of the frame's epoch in the connection; 0 while no frame came of the packet."""
    t: float = 0.0
    """Event time in that epoch, seconds."""


class PacketRing:
    """Packets of one connection, whole groups of pictures, bounded in seconds and bytes.

    `add` and `mark` belong to the capturing thread; `write` may be called from another one.
    """

    def __init__(self, stream: Any, seconds: float, max_bytes: int) -> None:
        """Prepare to keep packets of an opened video stream.

        Raises:
            ClipError: the stream is not compressed.
        """
        if stream.codec_context.name in _NOT_COMPRESSED:
            raise ClipError("this source is not compressed, so nothing of it can be kept for clips")
        self._seconds, self._max_bytes = seconds, max_bytes
        self._time_base = stream.time_base
        # A copy of the stream's parameters, which stays valid when the source is closed.
        self._template_of = av.open(io.BytesIO(), "w", format="matroska")
        self._template = self._template_of.add_stream_from_template(stream, opaque=True)
        self._groups: deque[list[Entry]] = deque()
        self._lock = threading.Lock()
        self.bytes = 0
        """Size of what is kept."""

    def add(self, packet: Any, arrival: float) -> Entry | None:
        """Keep a packet that arrived at `arrival` (monotonic seconds); None where none before it can be decoded."""
        entry = Entry(bytes(packet), bool(packet.is_keyframe), packet.pts, packet.dts, packet.duration or 0, arrival)
        with self._lock:
            if entry.key:
                self._groups.append([])
            elif not self._groups:
                return None
            self._groups[-1].append(entry)
            self.bytes += len(entry.data) + _OVERHEAD
            # The group before the bound is kept with it: what is asked for may begin in its middle.
            while len(self._groups) > 1 and self._groups[1][0].arrival <= arrival - self._seconds:
                self._forget()
            while self._groups and self.bytes > self._max_bytes:
                self._forget()
        return entry

    def mark(self, entry: Entry, epoch: int, t: float) -> None:
        """Note that the packet's frame stands at event time `t` of an epoch."""
        entry.t, entry.epoch = t, epoch

    def write(self, epoch: int, t_start: float, t_end: float, path: Path) -> Clip:
        """Write the frames of [t_start, t_end) of an epoch, from the key frame before them on, as MP4 or MKV.

        The file appears under its name when it is complete.

        Raises:
            ClipError: nothing of this time is kept, or the file cannot be written.
        """
        container_format = _FORMATS.get(path.suffix.lower())
        if container_format is None:
            raise ClipError(f"{path.name}: a clip must end in one of {', '.join(_FORMATS)}")
        entries = self._select(epoch, t_start, t_end)
        if not entries:
            raise ClipError(f"{path.name}: nothing is kept of this time; keep more seconds, or ask sooner")
        part = path.with_name(f".{path.name}.part")
        try:
            self._mux(entries, part, container_format)
            os.replace(part, path)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            part.unlink(missing_ok=True)
            why = getattr(error, "strerror", None) or type(error).__name__
            raise ClipError(f"{path.name}: cannot be written ({why}); check the folder, or write .mkv") from None
        times = [entry.t for entry in entries if entry.epoch == epoch]
        return Clip(path, min(times), max(times), path.stat().st_size)

    def _forget(self) -> None:
        self.bytes -= sum(len(entry.data) + _OVERHEAD for entry in self._groups.popleft())

    def _select(self, epoch: int, t_start: float, t_end: float) -> list[Entry]:
        """Entries in decoding order, from a key frame to the last packet of the span."""
        chosen: list[Entry] = []
        with self._lock:
            for group in self._groups:
                times = [entry.t for entry in group if entry.epoch == epoch]
                if times and min(times) < t_end and (max(times) >= t_start):
                    chosen += group
        while chosen and not (chosen[-1].epoch == epoch and chosen[-1].t < t_end):
            chosen.pop()
        return chosen

    def _mux(self, entries: list[Entry], path: Path, container_format: str) -> None:
        with av.open(str(path), "w", format=container_format) as container:
            stream = container.add_stream_from_template(self._template, opaque=True)
            for entry, pts, dts in _retime(entries):
                packet: Any = av.Packet(entry.data)
                packet.stream, packet.time_base = stream, self._time_base
                packet.pts, packet.dts, packet.duration = pts, dts, entry.duration
                packet.is_keyframe = entry.key
                container.mux(packet)


def _retime(entries: list[Entry]) -> list[tuple[Entry, int, int]]:
    """Give every packet a PTS and an increasing DTS, from zero on; the first packets of RTSP often have none."""
    step = next((entry.duration for entry in entries if entry.duration), 1)
    known = next((i for i, entry in enumerate(entries) if entry.dts is not None), None)
    next_dts = 0 if known is None else (entries[known].dts or 0) - known * step
    origin = next_dts
    timed = []
    for entry in entries:
        dts = max(next_dts, entry.dts if entry.dts is not None else next_dts)
        pts = max(dts, entry.pts if entry.pts is not None else dts)
        timed.append((entry, pts - origin, dts - origin))
        next_dts = dts + 1 if entry.dts is not None else dts + step
    return timed
