"""What is the matter with a source, or what comes from it: one look at it, for `doctor` and for people."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

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
    the report together with what had been measured.
    """
    chosen = dataclasses.replace(options or LiveOptions(), fps=None, preview=None, policy="latest", record=0.0)
    with LiveReader(address, chosen) as reader:
        found, first, last = _watch(reader, seconds)
        return _report(reader, found, first, last)


def _watch(reader: LiveReader, seconds: float) -> tuple[Problem | None, LiveFrame | None, LiveFrame | None]:
    first: LiveFrame | None = None
    last: LiveFrame | None = None
    deadline: float | None = None
    while deadline is None or time.monotonic() < deadline:
        for item in reader.read(0.5):
            if isinstance(item, LiveFrame):
                first, last = first or item, item
                deadline = deadline or time.monotonic() + seconds
            elif isinstance(item, StateChange) and item.state in ("reconnecting", "ended"):
                return item.problem, first, last
    return None, first, last


def _report(reader: LiveReader, found: Problem | None, first: LiveFrame | None, last: LiveFrame | None) -> Report:
    shown = reader.address.shown
    if first is None or last is None:
        return Report(shown, found)
    seen, opened = reader.seen, reader.opened
    interval = seen["frame_interval"]
    span = _span(seen, interval)
    rtcp = last.wall if last.wall.source == "rtcp" else None
    return Report(
        shown,
        found,
        format=opened.get("format"),
        codec=last.codec,
        size=last.source_size,
        frames=reader.counters()["frames_in"],
        frame_rate=1 / interval if interval else None,
        claimed_rate=opened.get("claimed_rate"),
        bit_rate=8 * seen["bytes"] / span if span else None,
        key_interval=seen["key_interval"],
        sender_reports=seen["reports"] > 0,
        clock_offset=rtcp.unix - last.arrival_unix if rtcp else None,
        seconds_to_open=opened.get("seconds"),
        damaged=seen["corrupt"],
        hardware=bool(opened.get("hardware")),
    )


def _span(seen: dict[str, Any], interval: float | None) -> float | None:
    """Seconds of media time that the counted packets cover, where their rate is known."""
    return seen["packets"] * interval if interval and seen["packets"] else None
