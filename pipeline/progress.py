"""Where a run stands, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Progress", "StreamProgress"]


@dataclass
class StreamProgress:
    """Where one live stream stands."""

    state: str = "connecting"
    """connecting, live, stalled, reconnecting or ended."""
    fps: float = 0.0
    """Frames per second that came out of the last stage, over the last ten seconds."""
    age: float | None = None
    """Seconds from the arrival of the newest frame to its leaving the last stage; None before the first."""
    counters: dict[str, int] = field(default_factory=dict)
    """``frames_in``, ``frames_processed``, ``frames_dropped_*``, ``connections``, ``epochs`` ..."""

    @property
    def dropped(self) -> int:
        """Frames that were meant to be seen and were not; those between two samples do not count."""
        kept = "frames_dropped_unsampled"
        return sum(n for name, n in self.counters.items() if name.startswith("frames_dropped_") and name != kept)

    def conservation(self) -> str:
        """``312 frames in = 60 processed + 240 unsampled + 12 replaced``, drops by their reasons."""
        parts = [f"{self.counters.get('frames_processed', 0)} processed"]
        for name, number in sorted(self.counters.items()):
            if name.startswith("frames_dropped_") and number:
                parts.append(f"{number} {name.removeprefix('frames_dropped_')}")
        return f"{self.counters.get('frames_in', 0)} frames in = {' + '.join(parts)}"


@dataclass
class Progress:
    """Where a run stands; the session updates one object in place."""

    media_time: float = 0.0
    """Seconds of media processed, of the stream that is furthest behind."""
    duration: float | None = None
    """Seconds of media there are, where known."""
    events: int = 0
    latest_caption: str = ""
    speed: float = 0.0
    """Seconds of media per second of wall time since the first frames came out; loading models does not count."""
    counters: dict[str, int] = field(default_factory=dict)
    """Totals of the sources, e.g. frames_in."""
    streams: dict[str, StreamProgress] = field(default_factory=dict)
    """The live streams by name."""
