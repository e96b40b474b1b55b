"""What a session knows of one stream, and what the log says of the stream itself."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from onlooker.operators.contract import End, SourceInfo, StreamState, WallTime
from onlooker.operators.events import Event, Phase, Side, make_event

from .progress import StreamProgress
from .runtime.batch import Batch
from .timeline import Timeline

__all__ = ["StreamLog"]

# Frames whose wall times are kept: events speak of what was up to a few minutes ago, at some samples a second.
_WALLS = 1024
# Two quartz clocks drift apart by no more than this.
_DRIFT = 200e-6
_FPS_WINDOW = 10.0


class StreamLog:
    """One stream of a session.

    A file has a `stream` event that starts with it and ends with it. A live stream has one for as long as it is
    watched, which is updated whenever its state changes.
    """

    def __init__(self, uri: str) -> None:
        """Begin before the first batch; ``uri`` may hold credentials."""
        self.uri = uri
        self.info: SourceInfo | None = None
        self.opened = False
        """Whether its source could be opened."""
        self.end: End | None = None
        """How the stream ended, None before that."""
        self.over = False
        """Whether its end has been told to all, so that another stream may have its name."""
        self.epoch = 0
        """The epoch of the packets."""
        self.media_time = 0.0
        self.timing: dict[str, float] = {}
        self.counters: dict[str, int] = {}
        self.progress = StreamProgress()
        self.removed = False
        """Somebody wanted this stream to end, and no other."""
        self.processed = 0
        """Live: frames that came out of the last stage."""
        self.timeline = Timeline()
        """Live: where its epochs lie."""
        self._rev = 0
        self._walls: deque[WallTime] = deque(maxlen=_WALLS)
        self._passed: deque[tuple[float, int]] = deque()

    @property
    def name(self) -> str:
        """Name of the stream."""
        assert self.info is not None
        return self.info.stream

    @property
    def live(self) -> bool:
        """Whether it has states and epochs."""
        return self.info is not None and self.info.live

    def begin(self, info: SourceInfo, *, opened: bool) -> None:
        """The stream begins, or ends at once because its source could not be opened."""
        self.info, self.opened = info, opened
        if info.live:
            self.timeline.begin(info)

    def take(self, batch: Batch) -> None:
        """Count a batch that has left the last stage."""
        self.timing.update(batch.timing)
        self.counters.update(batch.counters)
        if batch.epoch != self.epoch and (batch.packets or batch.frames):
            self.epoch = batch.epoch
            self._walls.clear()
        if batch.wall is not None:
            self._walls.append(batch.wall)
        if self.live:
            self._take_live(batch)
        else:
            self.media_time = max(self.media_time, batch.now if math.isfinite(batch.now) else 0.0)

    def _take_live(self, batch: Batch) -> None:
        now, told = time.monotonic(), self.progress
        if batch.wall is not None:
            self.media_time = batch.wall.t
        self.processed += batch.frames
        if batch.frames:
            self._passed.append((now, batch.frames))
        while self._passed and self._passed[0][0] < now - _FPS_WINDOW:
            self._passed.popleft()
        watched = min(_FPS_WINDOW, max(self.timeline.now(), 1e-6))
        told.fps = sum(frames for _, frames in self._passed) / watched
        if batch.arrival is not None:
            told.age = max(0.0, now - batch.arrival)
        told.counters = {**self.counters, "frames_processed": self.processed}

    def started(self) -> Iterator[Event]:
        """The event of a file that begins; a live stream tells its state instead."""
        if not self.live:
            yield self._event("new", 0.0, status="started")

    def changed(self, state: StreamState) -> Event:
        """The event of a live stream that is in another state."""
        self.progress.state = state.status
        assert self.info is not None
        event = self._event(
            "update" if self._rev else "new",
            self.timeline.now(),
            status=state.status,
            reason=state.reason,
            message=state.message,
            retry_in=None if state.retry_in is None else round(state.retry_in, 3),
            new_epoch=state.epoch,
        )
        self._rev += 1
        return event.with_side(Side(wall=_rfc3339(state.unix), time_source="host", clock_err_ms=None))

    def ended(self, end: End) -> Event:
        """The last event of the stream; of a live one with its counters."""
        self.end = end
        self._walls.clear()
        if not self.live:
            self._rev = 1
            return self._event("end", end.t, t_end=end.t, status="ended", reason=end.reason, message=end.message)
        self.progress.state = "ended"
        now = self.timeline.now()
        event = self._event("end", now, t_end=now, status="ended", reason=end.reason, message=end.message)
        return event.with_side(
            Side(wall=_rfc3339(time.time()), time_source="host", counters=dict(sorted(self.progress.counters.items())))
        )

    def lost(self) -> None:
        """Count what was under way when the run broke off."""
        counters = self.progress.counters
        under_way = counters.get("frames_delivered", 0) + counters.get("frames_waiting", 0) - self.processed
        counters["frames_dropped_failed"], counters["frames_waiting"] = under_way, 0

    def side(self, event: Event) -> Side:
        """Clocks and speed of an event of this stream."""
        assert self.info is not None
        latency = {stage: round(seconds * 1e3, 3) for stage, seconds in self.timing.items()}
        if self.live:
            return self._live_side(event, latency)
        wall = None if self.info.wall_zero is None else _rfc3339(self.info.wall_zero + event.t_start)
        return Side(
            wall=wall,
            time_source=self.info.time_source,
            clock_err_ms=self.info.clock_err_ms,
            latency_ms=latency,
        )

    def _live_side(self, event: Event, latency: dict[str, float]) -> Side:
        age = None if self.progress.age is None else round(self.progress.age * 1e3, 3)
        found = self._wall(event.t_start)
        if found is None:
            return Side(time_source="host", latency_ms=latency, age_ms=age)
        return Side(
            wall=_rfc3339(found.unix),
            time_source=found.source,
            clock_err_ms=round(found.error * 1e3, 3),
            latency_ms=latency,
            age_ms=age,
        )

    def _wall(self, t: float) -> WallTime | None:
        """Wall time of media time ``t`` by the last frame before it, or the oldest one that is kept."""
        if not self._walls:
            return None
        walls = list(self._walls)
        near = walls[max(0, bisect_right(walls, t, key=lambda wall: wall.t) - 1)]
        away = t - near.t
        return WallTime(t, near.unix + away, near.source, near.error + _DRIFT * abs(away))

    def _event(self, phase: Phase, t_seen: float, *, t_end: float | None = None, **content: Any) -> Event:
        assert self.info is not None
        return make_event(
            "stream",
            stream=self.info.stream,
            epoch=self.info.epoch,
            event_no=0,
            rev=self._rev,
            phase=phase,
            t_start=0.0,
            t_end=t_end,
            t_seen=t_seen,
            **content,
        )


def _rfc3339(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
