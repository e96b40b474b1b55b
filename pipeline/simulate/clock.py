"""The clocks of a simulated camera: its wall clock, and the 90 kHz clock of its RTP timestamps."""

from __future__ import annotations

import time

from .rtp import CLOCK_RATE

__all__ = ["CameraClock"]


class CameraClock:
    """Clocks driven by one crystal, which may run fast or slow; the wall clock may also be set wrong and jump.

    Instants of the host are seconds of `time.monotonic`; ticks count from the camera's start.
    """

    def __init__(self, offset: float = 0.0, drift_ppm: float = 0.0) -> None:
        """Start with the host's wall time plus `offset` seconds, `drift_ppm` parts per million fast."""
        self._start = time.monotonic()
        self._wall = time.time() + offset
        self._rate = 1 + drift_ppm * 1e-6

    def wall(self, instant: float) -> float:
        """Return the camera's Unix time, in seconds."""
        return self._wall + (instant - self._start) * self._rate

    def ticks(self, instant: float) -> int:
        """Return the camera's 90 kHz clock."""
        return round((instant - self._start) * self._rate * CLOCK_RATE)

    def instant(self, ticks: float) -> float:
        """Return when the camera's 90 kHz clock shows `ticks`."""
        return self._start + ticks / (CLOCK_RATE * self._rate)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward (or back), as a correction by NTP or by hand does."""
        self._wall += seconds
