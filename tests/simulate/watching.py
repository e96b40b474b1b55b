"""Watching a simulated camera as users do: with libav."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av

from tests.videos import frame_number

PATIENCE = (60.0, 30.0)  # seconds to open and to read


@dataclass
class Seen:
    number: int
    pts: int | None
    width: int
    arrival: float


@contextmanager
def opened(url: str, transport: str = "tcp", patience: tuple[float, float] = PATIENCE) -> Iterator[Any]:
    # Probing for 0.2 s instead of the usual 5, and not for the frame rate, is enough here and saves the tests a minute.
    options = {"rtsp_transport": transport, "analyzeduration": "200000", "fpsprobesize": "0"}
    with av.open(url, options=options, timeout=patience) as container:
        yield container


def frames(container: Any) -> Iterator[Seen]:
    """Decode until the end; what cannot be decoded is passed over."""
    stream = container.streams.video[0]
    for packet in container.demux(stream):
        try:
            decoded = stream.decode(packet)
        except av.error.InvalidDataError:
            continue
        for frame in decoded:
            yield Seen(frame_number(frame.to_ndarray(format="rgb24")), frame.pts, frame.width, time.monotonic())


def take(url: str, count: int, transport: str = "tcp") -> list[Seen]:
    """Return the first frames that are seen."""
    with opened(url, transport) as container:
        return [seen for _, seen in zip(range(count), frames(container), strict=False)]


def sender_report(packet: Any) -> tuple[float, int] | None:
    """Return Unix time and RTP timestamp of the last report before a packet."""
    if not packet.has_sidedata("rtcp_sr"):
        return None
    _, ntp, rtp, _, _ = struct.unpack("<I4xQIII4x", bytes(packet.get_sidedata("rtcp_sr")))
    return (ntp >> 32) - 2_208_988_800 + (ntp & 0xFFFFFFFF) / 2**32, rtp


def capture_time(packet: Any) -> float | None:
    """Return the Unix time of a packet, which libav works out of reports and timestamps."""
    if not packet.has_sidedata("prft"):
        return None
    return float(struct.unpack("<qi4x", bytes(packet.get_sidedata("prft")))[0]) / 1e6
