"""What a live reader may be told, checked once; plain values, so that they cross to the decoding process."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from .handoff import DropPolicy

__all__ = ["LARGEST_RECORD", "HardwareDecoding", "LiveOptions"]

LARGEST_RECORD = 200 << 20
"""Bytes; a clip may hold all that is kept, and must fit into one message of the decoding process."""

HardwareDecoding = Literal["auto", "none", "cuda", "vaapi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a source is read. Times in seconds."""

    fps: float | None = 2.0
    """Samples per second of media time; None for every frame."""
    size: tuple[int, int] | None = (224, 224)
    """(height, width) that pictures are squashed to; None keeps the shown size."""
    preview: int | None = None
    """Short side of an additional picture with square pixels and its aspect kept."""
    policy: DropPolicy = "latest"
    """What gives way when the consumer is slow; `block` is for sources that can wait: files and test patterns."""
    queue: int = 8
    """Frames that `drop_oldest` and `block` keep."""
    longest_wait: float | None = None
    """A frame that waited longer gives way to a newer one, if there is one; None for never."""
    hwaccel: HardwareDecoding = "none"
    """Where pictures are decoded; falls back to the CPU. `auto` takes the first device that works."""
    threads: int = 0
    """Decoder threads, each on a slice of a picture; 0 for one per core."""
    connect_timeout: float = 10.0
    """Opening may take this long."""
    stall_after: float = 3.0
    """Without a frame for this long the stream counts as stalled."""
    reconnect_after: float = 8.0
    """Without a frame for this long it is given up and connected anew."""
    backoff_first: float = 0.5
    """Longest wait before the first new attempt."""
    backoff_cap: float = 30.0
    """Longest wait before any attempt."""
    refused_wait: float = 60.0
    """Longest wait after the source refused: wrong password, no such stream."""
    settled: float = 10.0
    """A stream that was live this long starts over with the shortest wait."""
    record: float = 0.0
    """Seconds of compressed video to keep for clips; 0 for none."""
    record_bytes: int = 64 << 20
    """Largest size of what is kept for clips."""
    seed: int | None = None
    """For repeatable waits."""

    def __post_init__(self) -> None:
        """Check ranges; raises ValueError."""
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"fps must be a positive number or None, got {self.fps}")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size must be (height, width) of at least 1 pixel, got {self.size}")
        if self.preview is not None and self.preview < 2:
            raise ValueError(f"preview must be at least 2 pixels, got {self.preview}")
        if self.policy not in get_args(DropPolicy) or self.hwaccel not in get_args(HardwareDecoding):
            raise ValueError(f"unknown policy or hwaccel: {self.policy!r}, {self.hwaccel!r}")
        if not 0 < self.stall_after <= self.reconnect_after or self.connect_timeout <= 0:
            raise ValueError("times must satisfy 0 < stall_after <= reconnect_after and 0 < connect_timeout")
        if self.longest_wait is not None and (self.policy == "block" or not self.longest_wait > 0):
            raise ValueError(f"longest_wait must be positive, and block drops nothing, got {self.longest_wait}")
        if self.queue < 1 or self.threads < 0 or self.record < 0:
            raise ValueError("queue must be positive, threads and record not negative")
        if not 1 <= self.record_bytes <= LARGEST_RECORD:
            raise ValueError(f"record_bytes must be from 1 to {LARGEST_RECORD}, got {self.record_bytes}")

    def to_wire(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> LiveOptions:
        """Rebuild from `to_wire`."""
        known = {f.name: values[f.name] for f in fields(cls)}
        return cls(**{**known, "size": tuple(values["size"]) if values["size"] else None})
