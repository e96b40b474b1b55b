"""One run from sources to sinks: whatever runner does the work, this is where its batches become the log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from onlooker.operators.contract import Control, End, SourceInfo
from onlooker.operators.events import Event, Side, make_event

from .errors import OnlookerError
from .graph import Edge, Graph
from .runtime.batch import Batch, SourceSpec
from .runtime.merge import EventMerger
from .sinks.base import Sink

__all__ = ["Progress", "Runner", "Session"]


class Runner(Protocol):
    """What a session needs of a runner."""

    def run(self, specs: list[SourceSpec]) -> Iterator[Batch]:
        """Yield the batches of all streams, each stream's in order."""

    def interrupt(self) -> None:
        """End all streams soon."""

    def send(self, control: Control) -> None:
        """Hand a control packet to the nodes."""


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


@dataclass
class _Stream:
    uri: str
    info: SourceInfo | None = None
    end: End | None = None
    media_time: float = 0.0
    timing: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)


class Session:
    """Runs a graph over sources and feeds the sinks."""

    def __init__(
        self,
        graph: Graph,
        make_runner: Callable[[Graph, frozenset[Edge]], Runner],
        specs: list[SourceSpec],
        sinks: list[Sink],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            graph: the validated graph.
            make_runner: LocalRunner, RayRunner or what behaves like them.
            specs: the streams.
            sinks: where events and packets go.
            on_progress: called after each batch.
        """
        self._edges = {sink: [e for port in sink.ports for e in graph.edges_named(port)] for sink in sinks}
        self._runner = make_runner(graph, frozenset(e for edges in self._edges.values() for e in edges))
        self._specs = specs
        self._sinks = list(sinks)
        self._on_progress = on_progress
        self._streams = {spec.stream: _Stream(spec.uri) for spec in specs}
        self._merger = EventMerger([spec.stream for spec in specs], graph.event_edges)
        self.progress = Progress()
        self._moving: tuple[float, float] | None = None
        self.failures: list[str] = []
        """One line for each sink that failed on the way."""

    @property
    def ends(self) -> dict[str, End]:
        """How each stream ended, of those that have."""
        return {name: stream.end for name, stream in self._streams.items() if stream.end is not None}

    @property
    def exit_code(self) -> int:
        """0 complete; 3 partial: a stream or a sink broke off; 130 interrupted."""
        reasons = {end.reason for end in self.ends.values()}
        if "interrupted" in reasons:
            return 130
        return 3 if self.failures or reasons - {"complete"} else 0

    def interrupt(self) -> None:
        """End all streams soon; what was read is still processed and written."""
        self._runner.interrupt()

    def send(self, control: Control) -> None:
        """Hand a control packet to the nodes."""
        self._runner.send(control)

    def events(self) -> Iterator[Event]:
        """Run to the end; yields the events in the order of the log, after the sinks have had them.

        Raises:
            OutputError: a sink cannot be opened; nothing has run then.
            Exception: what a source or operator raised; the sinks hold what came before, complete.
        """
        opened: list[Sink] = []
        try:
            for sink in self._sinks:
                sink.open()
                opened.append(sink)
            for batch in self._runner.run(self._specs):
                self._take(batch)
                yield from self._emit()
                for stream in [s for s in self._streams.values() if s.end is batch.end is not None]:
                    self._each("finish", _name(stream), stream.end)
                if self._on_progress is not None:
                    self._on_progress(self.progress)
        except Exception:
            yield from self._abort()
            raise
        finally:
            self._sinks = [sink for sink in self._sinks if sink in opened]
            self._each("close")

    def _take(self, batch: Batch) -> None:
        stream = self._streams[batch.stream]
        stream.timing.update(batch.timing)
        stream.counters.update(batch.counters)
        if batch.info is not None:
            stream.info = batch.info
            self._each("start", batch.info, stream.uri)
            self._merger.push(-math.inf, self._stream_event(stream, None))
        for sink, edges in list(self._edges.items()):
            for edge in edges:
                if batch.packets.get(edge):
                    self._call(sink, "packets", edge.partition(".")[2], batch.packets[edge])
        self._merger.add(batch)
        if math.isfinite(batch.now):
            stream.media_time = max(stream.media_time, batch.now)
        if batch.end is not None:
            stream.end = batch.end
            self._merger.push(math.inf, self._stream_event(stream, batch.end))
        self._update_progress()

    def _emit(self) -> Iterator[Event]:
        for _, event in self._merger.ready():
            event = event.with_side(self._side(event))
            self.progress.events += 1
            if event.kind == "caption":
                self.progress.latest_caption = str(getattr(event.data, "text", ""))
            self._each("event", event)
            yield event
        watermark = self._merger.watermark()
        if math.isfinite(watermark):
            self._each("advance", watermark)

    def _abort(self) -> Iterator[Event]:
        """After an error: end the streams that are open, so that the log says that it is partial."""
        for name, stream in self._streams.items():
            end = stream.end or End("failed", stream.media_time)
            if stream.info is not None and stream.end is None:
                stream.end = end
                self._merger.push(math.inf, self._stream_event(stream, end))
            self._merger.add(Batch(name, end=end))  # also for a stream that never began: it holds the others back
        yield from self._emit()
        for stream in self._streams.values():
            if stream.end is not None and stream.end.reason == "failed":
                self._each("finish", _name(stream), stream.end)

    def _stream_event(self, stream: _Stream, end: End | None) -> Event:
        assert stream.info is not None
        return make_event(
            "stream",
            stream=stream.info.stream,
            epoch=stream.info.epoch,
            event_no=0,
            rev=0 if end is None else 1,
            phase="new" if end is None else "end",
            t_start=0.0,
            t_end=None if end is None else end.t,
            t_seen=0.0 if end is None else end.t,
            status="started" if end is None else "ended",
            reason=None if end is None else end.reason,
        )

    def _side(self, event: Event) -> Side:
        stream = self._streams[event.data.stream]
        assert stream.info is not None
        wall = None
        if stream.info.wall_zero is not None:
            wall = datetime.fromtimestamp(stream.info.wall_zero + event.t_start, UTC).isoformat(timespec="milliseconds")
        return Side(
            wall=wall,
            time_source=stream.info.time_source,
            clock_err_ms=stream.info.clock_err_ms,
            latency_ms={stage: round(seconds * 1e3, 3) for stage, seconds in stream.timing.items()},
        )

    def _update_progress(self) -> None:
        streams = self._streams.values()
        media_time = self.progress.media_time = min(s.media_time for s in streams)
        if self._moving is not None:
            since, start = self._moving
            self.progress.speed = (media_time - start) / max(time.monotonic() - since, 1e-6)
        elif media_time > 0:
            self._moving = (time.monotonic(), media_time)
        durations = [s.info.duration for s in streams if s.info is not None and s.info.duration is not None]
        self.progress.duration = max(durations) if len(durations) == len(streams) else None
        totals: dict[str, int] = {}
        for stream in streams:
            for name, count in stream.counters.items():
                totals[name] = totals.get(name, 0) + count
        self.progress.counters = totals

    def _each(self, method: str, *args: object) -> None:
        for sink in list(self._sinks):
            self._call(sink, method, *args)

    def _call(self, sink: Sink, method: str, *args: object) -> None:
        """A sink that fails is dropped; the others go on, since what they hold must not be lost."""
        if sink not in self._sinks:
            return
        try:
            getattr(sink, method)(*args)
        except (OSError, OnlookerError) as error:
            self._sinks.remove(sink)
            self._edges.pop(sink, None)
            self.failures.append(f"{type(sink).__name__} stopped: {error}")
            if method != "close":
                self._close_quietly(sink)

    def _close_quietly(self, sink: Sink) -> None:
        try:
            sink.close()
        except (OSError, OnlookerError):
            return  # it has been reported; whatever broke it breaks its end too


def _name(stream: _Stream) -> str:
    assert stream.info is not None
    return stream.info.stream
