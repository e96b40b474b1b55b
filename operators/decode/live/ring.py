"""The last seconds of a live stream as compressed packets, from which clips are cut without encoding anew."""

from __future__ import annotations

import io
import threading
from collections import deque
from typing import Any

import av

from ..clip import ClipError, CutVideo, Entry, cut

__all__ = ["PacketRing"]

# Packets of these hold no compressed video, the first not even pixels but a pointer to them.
_NOT_COMPRESSED = {"wrapped_avframe", "rawvideo"}
# What a packet costs beside its bytes.
_OVERHEAD = 300


class PacketRing:
    """Packets of one connection, whole groups of pictures, bounded in seconds and bytes.

    `add` and `mark` belong to the capturing thread; `cut` may be called from another one.
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

    def cut(self, epoch: int, t_start: float, t_end: float, tail: float = 0.0) -> CutVideo:
        """Cut out the frames of [t_start, t_end + tail) of an epoch, from the key frame before them on.

        Raises:
            ClipError: nothing of this time is kept, or it cannot be cut.
        """
        entries = self._select(epoch, t_start, t_end + tail)
        if not entries:
            raise ClipError("nothing is kept of this time; keep more seconds (`record`)")
        return cut(self._template, self._time_base, entries, epoch, t_start, t_end)

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
