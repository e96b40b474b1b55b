"""Honest time for live streams: when a frame stands on the media clock, and when it happened in the world.

Everything here is arithmetic on what the caller observed; nothing reads a clock.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["EpochReason", "EventClock", "PacketWall", "RateWatch", "Wall", "WallClock", "WallSource"]

EpochReason = Literal["start", "pts_back", "pts_forward", "pts_stuck", "format", "rate"]
WallSource = Literal["rtcp", "host"]

# Smallest distance of two event times, seconds; the log rounds to a microsecond.
MIN_STEP = 0.001
# PTS of MPEG-2 systems have 33 bits (ISO 13818-1, 2.4.3.7), RTP time stamps 32 (RFC 3550, 5.1), both at 90 kHz.
WRAP_PERIODS = ((1 << 33) / 90_000, (1 << 32) / 90_000)
# Clocks that were never set stand at 1970 or at the start of their firmware's time.
_OLDEST_WALL = 946_684_800.0  # 2000-01-01


class EventClock:
    """Event time of the frames of one connection: seconds since the first frame of the epoch, strictly increasing.

    PTS are followed where they can be. Missing ones are bridged by arrival, repeated ones and small steps back are
    put `MIN_STEP` after the frame before, wraps are undone. What cannot be told as one line of time starts a new
    epoch at 0: a jump back by more than `jump_back`, a jump forward by which frames would arrive more than
    `jump_forward` before they are due, and PTS that stand still (from then on arrival alone counts).
    """

    def __init__(self, jump_back: float = 1.0, jump_forward: float = 5.0, stuck_after: float = 2.0) -> None:
        """Start before the first frame of a connection; all arguments in seconds."""
        self._jump_back, self._jump_forward, self._stuck_after = jump_back, jump_forward, stuck_after
        self.nudged = 0
        """Frames whose PTS did not increase."""
        self._started = self._use_arrival = False
        self._wraps = 0.0
        self._origin: float | None = None
        self._last_pts: float | None = None
        self._last_t = self._last_arrival = self._last_progress = 0.0
        self._least_delay = math.inf

    def place(
        self, pts: float | None, arrival: float, restart: EpochReason | None = None
    ) -> tuple[float, EpochReason | None]:
        """Return the event time in seconds of the next frame, and why a new epoch begins with it, else None.

        Args:
            pts: Presentation time in seconds on the source's clock, None where it is missing.
            arrival: When it arrived, monotonic seconds.
            restart: Begin a new epoch in any case, for this reason.
        """
        if not self._started:
            restart = "start"
        if self._use_arrival or (pts is not None and not math.isfinite(pts)):
            pts = None
        if pts is not None and self._started and self._last_pts is not None:
            pts += self._wraps
            pts, restart = self._check(pts, arrival, restart)
        if restart is not None:
            return self._begin(None if self._use_arrival else pts, arrival), restart
        return self._go_on(pts, arrival), None

    def _check(self, pts: float, arrival: float, restart: EpochReason | None) -> tuple[float, EpochReason | None]:
        """Undo a wrap; find a jump and standing PTS."""
        assert self._last_pts is not None
        if pts < self._last_pts - self._jump_back:
            wrapped = self._unwrap(pts)
            if wrapped is None:
                return pts, restart or "pts_back"
            pts = wrapped
        elif arrival - pts < self._least_delay - self._jump_forward:
            return pts, restart or "pts_forward"
        if pts <= self._last_pts and arrival - self._last_progress > self._stuck_after:
            self._use_arrival = True
            return pts, restart or "pts_stuck"
        return pts, restart

    def _unwrap(self, pts: float) -> float | None:
        assert self._last_pts is not None
        for period in WRAP_PERIODS:
            if -self._jump_back < pts + period - self._last_pts < self._jump_forward:
                self._wraps += period
                return pts + period
        return None

    def _begin(self, pts: float | None, arrival: float) -> float:
        self._started = True
        self._last_t = 0.0
        self._origin = self._last_pts = pts
        self._last_arrival = self._last_progress = arrival
        self._least_delay = math.inf if pts is None else arrival - pts
        return 0.0

    def _go_on(self, pts: float | None, arrival: float) -> float:
        bridged = self._last_t + max(MIN_STEP, arrival - self._last_arrival)
        if pts is None:
            t = bridged
        else:
            if self._origin is None:  # frames without PTS stand before the first one that has it
                self._origin = pts - bridged
            t = pts - self._origin
            if t < self._last_t + MIN_STEP:
                self.nudged += 1
                t = self._last_t + MIN_STEP
            if self._last_pts is None or pts > self._last_pts:
                self._last_pts, self._last_progress = pts, arrival
            self._least_delay = min(self._least_delay, arrival - pts)
        self._last_t, self._last_arrival = round(t, 6), arrival
        return self._last_t


class RateWatch:
    """Notices that a steady frame rate became another steady one, as when a camera switches to its night mode.

    Loss, jitter and variable rates are no change: both rates must hold over `window` frames, in which four out of
    five steps lie within a tenth of the median, and differ by more than `ratio`.
    """

    def __init__(self, window: int = 32, ratio: float = 1.4) -> None:
        """Watch over `window` frames."""
        self._steps: deque[float] = deque(maxlen=window)
        self._ratio = ratio
        self._last: float | None = None
        self.interval: float | None = None
        """Seconds between frames of the current steady rate, None before one is known."""

    def changed(self, t: float) -> bool:
        """Say whether the frame at event time `t` completes a new steady rate."""
        if self._last is not None:
            self._steps.append(t - self._last)
        self._last = t
        steady = self._steady()
        if steady is None:
            return False
        before, self.interval = self.interval, self.interval or steady
        if before is None or max(steady / before, before / steady) < self._ratio:
            return False
        self.interval = steady
        return True

    def restart(self) -> None:
        """Forget everything: a new epoch begins."""
        self._steps.clear()
        self._last = self.interval = None

    def _steady(self) -> float | None:
        if len(self._steps) < (self._steps.maxlen or 0):
            return None
        steps = sorted(self._steps)
        median = steps[len(steps) // 2]
        if median <= 0:
            return None  # the PTS stand still
        near = sum(abs(step - median) <= median / 10 for step in steps)
        return median if near * 5 >= len(steps) * 4 else None


@dataclass(frozen=True, slots=True)
class Wall:
    """When a frame was taken."""

    unix: float
    """Unix time, seconds."""
    source: WallSource
    """`rtcp`: the camera's clock by its sender reports. `host`: this computer's clock when the frame arrived."""
    error: float
    """Bound of the error against that clock, seconds."""


class WallClock:
    """Wall time of the frames of one epoch.

    With sender reports (RFC 3550 6.4.1) it is the camera's clock, right or wrong. Without them it is the arrival on the
    host's clock less the delay that this frame had in excess of the fastest frame of the last `window` seconds: jitter
    and queues cancel, a drift of the camera's clock is followed. The delay that all frames share cannot be seen from
    here; `unseen_delay` is the allowance for it in the bound.
    """

    # Quartz clocks stay within 100 ppm of each other, 200 for two of them running apart.
    _DRIFT = 200e-6
    _RTCP_ERROR = 0.005

    def __init__(self, unseen_delay: float = 1.0, opening: float = 0.0, window: float = 60.0) -> None:
        """Start an epoch.

        Args:
            unseen_delay: Largest delay, seconds, that the fastest frame may have had from scene to host.
            opening: Seconds that opening took; the first frames waited that long inside libav's probe.
            window: Seconds over which the smallest delay is sought.
        """
        self._unseen, self._opening, self._window = unseen_delay, opening, window
        self._minima: deque[tuple[int, float]] = deque()
        self._first: float | None = None
        self._rtcp_offset: float | None = None
        self._last_report = -math.inf

    def place(
        self, t: float, arrival: float, arrival_unix: float, packet_wall: float | None = None, report: bool = False
    ) -> Wall:
        """Return the wall time of a frame.

        Args:
            t: Event time in the epoch, seconds.
            arrival: Monotonic time of arrival, seconds.
            arrival_unix: The same moment in Unix time.
            packet_wall: Unix time that the camera gave this frame, or None.
            report: A new sender report came with this frame.
        """
        excess = self._excess(t, arrival)
        if packet_wall is not None:
            self._rtcp_offset = packet_wall - t
            if report or math.isinf(self._last_report):
                self._last_report = arrival
        if self._rtcp_offset is not None:
            age = max(0.0, arrival - self._last_report)
            return Wall(t + self._rtcp_offset, "rtcp", self._RTCP_ERROR + self._DRIFT * age)
        error = self._unseen + self._DRIFT * self._window
        assert self._first is not None
        if arrival - self._first < 2 * self._opening:
            error += self._opening
        return Wall(arrival_unix - excess, "host", error)

    def _excess(self, t: float, arrival: float) -> float:
        """Delay of this frame over the smallest in the window, from one minimum per second."""
        self._first = arrival if self._first is None else self._first
        delay, second = arrival - t, math.floor(arrival)
        while self._minima and self._minima[-1][1] >= delay:
            self._minima.pop()
        if not self._minima or self._minima[-1][0] != second:
            self._minima.append((second, delay))
        while self._minima[0][0] < second - self._window:
            self._minima.popleft()
        return delay - self._minima[0][1]


class PacketWall:
    """Reads the camera's wall time out of packets of one connection: libav's `prft`, filled from sender reports.

    libav computes the first one after the first report from the time stamp of another packet, so that it is a frame
    off; it is left out. Times before 2000 come from cameras whose clock was never set; they are left out too.
    """

    def __init__(self) -> None:
        """Start a connection."""
        self._seen = False
        self.reports = 0
        """Packets that came with a sender report."""

    def read(self, packet: Any) -> tuple[float | None, bool]:
        """Return the Unix time of a packet or None, and whether a sender report came with it."""
        report = bool(packet.has_sidedata("rtcp_sr"))
        self.reports += report
        if not packet.has_sidedata("prft"):
            return None, report
        data = bytes(packet.get_sidedata("prft"))
        first, self._seen = not self._seen, True
        if first or len(data) < 8:
            return None, report
        wall: float = struct.unpack_from("<q", data)[0] / 1e6
        return (wall if wall >= _OLDEST_WALL else None), report
