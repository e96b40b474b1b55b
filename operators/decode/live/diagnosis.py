"""What is the matter with a source, or what comes from it: one look at it, for `doctor` and for people."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from .address import LiveAddress
from .items import LiveFrame, StateChange
from .options import LiveOptions
from .problems import Problem
from .reader import LiveReader

__all__ = ["Report", "diagnose"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. Without frames all but `shown` and `problem` are None or 0."""

    shown: str
    """The address without secrets."""
    problem: Problem | None
    """Why there are no pictures, or why they stopped; None where all is well."""
    format: str | None = None
    codec: str | None = None
    size: tuple[int, int] | None = None
    """(width, height) as shown, pixels."""
    frames: int = 0
    frame_rate: float | None = None
    """Frames per second of media time, measured."""
    claimed_rate: float | None = None
    """Frames per second that the source claims."""
    bit_rate: float | None = None
    """Bits per second of media time, measured on the compressed video."""
    key_interval: float | None = None
    """Seconds between key frames; None where fewer than two came."""
    sender_reports: bool = False
    """Whether the camera tells its clock (RTCP)."""
    clock_offset: float | None = None
    """Seconds by which the camera's clock is ahead of this host's, the way from camera to here not counted."""
    seconds_to_open: float | None = None
    damaged: int = 0
    """Packets that came damaged."""
    hardware: bool = False
    """Decoded by hardware."""


def diagnose(address: LiveAddress, seconds: float = 10.0, options: LiveOptions | None = None) -> Report:
    """Open a source once, watch it for up to `seconds` after the first frame, and report.

    Every frame is decoded and none is kept. Ends early where there is a problem; a problem after the first frame is in
    the report together with what had been measured. A source that stands still at the end has stalled.
    """
    chosen = dataclasses.replace(options or LiveOptions(), fps=None, preview=None, policy="latest", record=0.0)
    with LiveReader(address, chosen) as reader:
        return _report(reader, *_watch(reader, seconds))


class _Watched:
    """What the frames told, while they came."""

    def __init__(self) -> None:
        self.first: LiveFrame | None = None
        self.last: LiveFrame | None = None
        self._start = (0, 0.0)  # frames before, and event time of, the first frame of the latest epoch
        self.frame_rate: float | None = None

    def add(self, frame: LiveFrame, decoded: int) -> None:
        """Take the next frame that came; `decoded` were, up to about this one."""
        if self.last is None or frame.epoch != self.last.epoch:
            self._start = (decoded, frame.t)
        self.first, self.last = self.first or frame, frame
        span = frame.t - self._start[1]
        self.frame_rate = (decoded - self._start[0]) / span if span > 0 else self.frame_rate


def _watch(reader: LiveReader, seconds: float) -> tuple[Problem | None, _Watched]:
    watched, stalled = _Watched(), None
    deadline: float | None = None
    while deadline is None or time.monotonic() < deadline:
        for item in reader.read(0.5):
            if isinstance(item, LiveFrame):
                watched.add(item, reader.counters()["frames_in"])
                deadline = deadline or time.monotonic() + seconds
            elif isinstance(item, StateChange):
                stalled = item.problem if item.state == "stalled" else None
                if item.state in ("reconnecting", "ended"):
                    return item.problem, watched
    return stalled, watched


def _report(reader: LiveReader, found: Problem | None, watched: _Watched) -> Report:
    shown, last = reader.address.shown, watched.last
    if last is None:
        return Report(shown, found)
    seen, opened = reader.seen, reader.opened
    interval = seen["frame_interval"]
    rate = 1 / interval if interval else watched.frame_rate
    rtcp = last.wall if last.wall.source == "rtcp" else None
    return Report(
        shown,
        found,
        format=opened.get("format"),
        codec=last.codec,
        size=last.source_size,
        frames=reader.counters()["frames_in"],
        frame_rate=rate,
        claimed_rate=opened.get("claimed_rate"),
        bit_rate=8 * seen["bytes"] * rate / seen["packets"] if rate and seen["packets"] else None,
        key_interval=seen["key_interval"],
        sender_reports=seen["reports"] > 0,
        clock_offset=rtcp.unix - last.arrival_unix if rtcp else None,
        seconds_to_open=opened.get("seconds"),
        damaged=seen["corrupt"],
        hardware=bool(opened.get("hardware")),
    )
