"""One run from sources to sinks: whatever runner does the work, this is where its batches become the log."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from onlooker.operators.contract import ClipRequest, Control, End
from onlooker.operators.events import Event

from .clips import Clips, ClipSettings
from .errors import OnlookerError, UsageError
from .graph import Edge, Graph
from .progress import Progress
from .runtime.batch import Batch, SourceSpec
from .runtime.merge import EventMerger
from .sinks.base import Sink
from .stream_log import StreamLog

__all__ = ["Progress", "Runner", "Session"]

_GOOD_ENDS = {"complete", "removed"}


class Runner(Protocol):
    """What a session needs of a runner."""

    def run(self, specs: list[SourceSpec], *, stay: bool = False) -> Iterator[Batch]:
        """Yield the batches of all streams, each stream's in order; with ``stay`` go on when none is left."""

    def interrupt(self) -> None:
        """End all streams soon."""

    def send(self, control: Control) -> None:
        """Hand a control packet to the nodes."""

    def add(self, spec: SourceSpec) -> None:
        """Watch one more live stream."""

    def remove(self, stream: str) -> None:
        """End one stream soon."""

    def clip(self, stream: str, request: ClipRequest) -> None:
        """Ask the source of a live stream for a clip, which comes with a later batch; from the iterating thread."""

    def release(self, stream: str) -> None:
        """All that became of a stream has been told; a source that waits for that may end. From the same thread."""


class Session:
    """Runs a graph over sources and feeds the sinks."""

    def __init__(
        self,
        graph: Graph,
        make_runner: Callable[[Graph, frozenset[Edge]], Runner],
        specs: list[SourceSpec],
        sinks: list[Sink],
        on_progress: Callable[[Progress], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
        on_failure: Callable[[str], None] | None = None,
        *,
        clips: ClipSettings | None = None,
        stay: bool = False,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            graph: the validated graph.
            make_runner: LocalRunner, RayRunner or what behaves like them.
            specs: the streams.
            sinks: where events and packets go.
            on_progress: called after each batch.
            on_notice: called with what the user should know though it changes nothing, one line each.
            on_failure: called at once with why one of several streams could not begin, one line each.
            clips: which events get clips; None for none.
            stay: of live streams there may be none, or none any more; the run goes on until it is interrupted.

        Raises:
            UsageError: ``stay`` for a graph that reads files.
        """
        if stay and not graph.live:
            raise UsageError(f"graph {graph.name!r} reads files; only live sources can be added while it runs.")
        self._edges = {sink: [e for port in sink.ports for e in graph.edges_named(port)] for sink in sinks}
        self._runner = make_runner(graph, frozenset(e for edges in self._edges.values() for e in edges))
        self._event_edges = graph.event_edges
        self._controls, self._answers_boxes = graph.controls, graph.answers_boxes
        self._specs, self._stay = specs, stay
        self._sinks = list(sinks)
        self._on_progress, self._on_notice, self._on_failure = on_progress, on_notice, on_failure
        self._clips = None if clips is None else Clips(clips, graph, self._runner.clip, self._notice)
        self._streams = {spec.stream: StreamLog(spec.uri) for spec in specs}
        self._adding = threading.RLock()
        self._merger = EventMerger([spec.stream for spec in specs], graph.event_edges)
        self._live_mergers: dict[str, tuple[int, EventMerger]] = {}
        """Stream -> its open epoch, and the order in it."""
        self.progress = Progress()
        self._moving: tuple[float, float] | None = None
        self.failures: list[str] = []
        """One line for each sink that failed on the way."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of all streams there are or were."""
        return tuple(self._streams)

    @property
    def ends(self) -> dict[str, End]:
        """How each stream ended, of those that have."""
        return {name: stream.end for name, stream in self._streams.items() if stream.end is not None}

    @property
    def exit_code(self) -> int:
        """0 complete; 2 nothing could be read; 3 partial: a stream or a sink broke off; 130 interrupted."""
        reasons = {end.reason for end in self.ends.values()}
        if "interrupted" in reasons:
            return 130
        broken = bool(reasons - _GOOD_ENDS)
        if broken and all(not s.opened or (s.live and not s.processed) for s in self._streams.values()):
            return 2
        return 3 if self.failures or broken else 0

    def interrupt(self) -> None:
        """End all streams soon; what was read is still processed and written."""
        self._runner.interrupt()
        for sink in list(self._sinks):  # the iterating thread drops those that fail
            sink.hurry()

    def send(self, control: Control) -> None:
        """Hand a control packet to the nodes; from any thread.

        Raises:
            UsageError: no node of the graph knows what to do with it, or there is no such stream.
        """
        if control.data.get("box") is not None and not self._answers_boxes:
            raise UsageError("this graph captions whole pictures; ask without a box.")
        if control.kind not in self._controls:
            known = ", ".join(sorted(self._controls)) or "nothing"
            raise UsageError(f"no node of this graph obeys {control.kind!r}; they obey: {known}.")
        if control.stream is not None and control.stream not in self._streams:
            raise UsageError(f"there is no stream {control.stream!r}; there are: {', '.join(self._streams) or 'none'}.")
        self._runner.send(control)

    def add(self, spec: SourceSpec) -> None:
        """Watch one more live stream while the run goes on; from any thread.

        Raises:
            UsageError: there is such a stream, the run is over, or it reads files.
            OnlookerError: the address cannot be read.
        """
        with self._adding:
            known = self._streams.get(spec.stream)
            if known is not None and not known.over:
                raise UsageError(f"there is a stream {spec.stream!r} already; remove it first, or choose another name.")
            before = self._streams
            self._streams = {**before, spec.stream: StreamLog(spec.uri)}  # replaced, since it may be read meanwhile
            try:
                self._runner.add(spec)
            except BaseException:
                self._streams = before
                raise

    def remove(self, stream: str) -> None:
        """End one stream and go on with the others; from any thread. What was read is still processed and written.

        Raises:
            UsageError: there is no such stream.
        """
        if stream not in self._streams:
            raise UsageError(f"there is no stream {stream!r}; there are: {', '.join(self._streams) or 'none'}.")
        self._streams[stream].removed = True
        self._runner.remove(stream)

    def events(self) -> Generator[Event, None, None]:
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
            if self._clips is not None:
                self._clips.open()
            for batch in self._runner.run(self._specs, stay=self._stay):
                for event in self._after_clips(batch):
                    yield self._tell(event)
                if self._on_progress is not None:
                    self._on_progress(self.progress)
            for event in self._rest():
                yield self._tell(event)
        except Exception:
            for event in itertools.chain(self._rest(), self._abort()):
                yield self._tell(event)
            raise
        finally:
            self._sinks = [sink for sink in self._sinks if sink in opened]
            self._each("close")
            self._account_for_clips()

    def _account_for_clips(self) -> None:
        if self._clips is not None and (told := self._clips.told()) is not None:
            self._notice(told)
            self.failures += self._clips.failures

    def _process(self, batch: Batch) -> Iterator[Event]:
        """What a batch brings; nothing happens before it is iterated over."""
        yield from self._due(self._take(batch), batch)

    def _after_clips(self, batch: Batch) -> Iterator[Event]:
        """The same, where events wait for their clips and later batches of their stream behind them."""
        if self._clips is None:
            return self._process(batch)
        work = iter(()) if batch.clips else self._process(batch)
        return self._clips.through(self._streams, batch.stream, batch.clips, work)

    def _rest(self) -> Iterator[Event]:
        """What still waits when the run is over."""
        if self._clips is not None:
            yield from self._clips.rest(self._streams)

    def _notice(self, text: str) -> None:
        if self._on_notice is not None:
            self._on_notice(text)

    def _take(self, batch: Batch) -> StreamLog:
        """Note what a batch says, and give the sinks its packets.

        Raises:
            OnlookerError: the only source cannot be opened; of several, its stream ends.
        """
        stream = self._streams[batch.stream]
        if batch.failure is not None and len(self._streams) == 1 and not self._stay:
            raise batch.failure
        if batch.info is not None:
            stream.begin(batch.info, opened=batch.failure is None)
            if stream.opened:
                self._each("start", batch.info, stream.uri, stream=batch.stream)
        if batch.failure is not None and self._on_failure is not None:
            self._on_failure(f"{batch.stream}: {batch.failure}")
        stream.take(batch)
        if stream.live and stream.timeline.take(batch):
            self._each("epoch", batch.stream, stream.timeline.zero, stream=batch.stream)
        for sink, edges in list(self._edges.items()):
            for edge in edges:
                if batch.packets.get(edge) and sink.stream in (None, batch.stream):
                    self._call(sink, "packets", edge.partition(".")[2], batch.packets[edge])
        for notice in batch.notices:
            self._notice(notice)
        self._update_progress()
        return stream

    def _due(self, stream: StreamLog, batch: Batch) -> Iterator[Event]:
        """The events that a batch makes due."""
        if stream.live:
            yield from self._due_live(stream, batch)
            return
        for event in stream.started() if batch.info is not None else ():
            self._merger.push(-math.inf, event)
        self._merger.add(batch)
        if batch.end is not None:
            self._merger.push(math.inf, stream.ended(batch.end))
        yield from self._merged()

    def _merged(self) -> Iterator[Event]:
        """The events of files that are due, in the one order of all of them."""
        for _, event in self._merger.ready():
            yield event.with_side(self._streams[event.data.stream].side(event))
        watermark = self._merger.watermark()
        if math.isfinite(watermark):
            self._each("advance", watermark)

    def _due_live(self, stream: StreamLog, batch: Batch) -> Iterator[Event]:
        """The events of a live stream: at once, and in the order of its own time."""
        for state in batch.states:
            yield stream.changed(state)
        epoch, merger = self._live_mergers.get(batch.stream, (-1, None))
        if merger is None or (batch.frames and batch.epoch != epoch):
            merger = EventMerger([batch.stream], self._event_edges)
            merger.begin(batch.stream)
            self._live_mergers[batch.stream] = (batch.epoch, merger)
        merger.add(batch)
        for _, event in merger.ready():
            yield event.with_side(stream.side(event))
        reached = merger.watermark() if batch.end is None else batch.end.t
        if math.isfinite(reached):
            self._each("advance", reached, stream=batch.stream)
        if batch.end is not None and batch.end.final:
            self._live_mergers.pop(batch.stream)
            removed = stream.removed and batch.end.reason == "interrupted"
            yield stream.ended(End("removed", batch.end.t) if removed else batch.end)

    def _tell(self, event: Event) -> Event:
        self.progress.events += 1
        if event.kind == "caption":
            self.progress.latest_caption = str(getattr(event.data, "text", ""))
        if event.kind == "stream" and event.phase == "end":
            with self._adding:  # a sink may tell somebody who adds a stream of this name at once
                self._tell_end(event)
        else:
            self._each("event", event, stream=event.data.stream)
        return event

    def _tell_end(self, event: Event) -> None:
        """Tell the last event of a stream, and free its name."""
        stream = self._streams[event.data.stream]
        self._each("event", event, stream=stream.name)
        if stream.opened and stream.end is not None:
            self._each("finish", stream.name, stream.end, stream=stream.name)
        self._runner.release(stream.name)
        stream.over = True

    def _abort(self) -> Iterator[Event]:
        """After an error: end the streams that are open, so that the log says that it is partial."""
        for name, stream in self._streams.items():
            end = stream.end or End("failed", stream.media_time)
            closing = Batch(name, end=end)
            if stream.live and stream.end is None:
                stream.lost()
                yield from self._due_live(stream, closing)
            elif not stream.live:
                if stream.info is not None and stream.end is None:
                    self._merger.push(math.inf, stream.ended(end))
                self._merger.add(closing)  # also for a stream that never began: it holds the others back
        yield from self._merged()

    def _update_progress(self) -> None:
        streams = self._streams
        behind = [s.media_time for s in streams.values() if s.end is None]
        media_time = self.progress.media_time = min(behind, default=max(s.media_time for s in streams.values()))
        if self._moving is not None:
            since, start = self._moving
            self.progress.speed = (media_time - start) / max(time.monotonic() - since, 1e-6)
        elif media_time > 0:
            self._moving = (time.monotonic(), media_time)
        infos = [s.info for s in streams.values() if s.opened or s.info is None]
        durations = [info.duration for info in infos if info is not None and info.duration is not None]
        self.progress.duration = max(durations, default=None) if len(durations) == len(infos) else None
        totals: dict[str, int] = {}
        for stream in streams.values():
            for name, count in (stream.progress.counters if stream.live else stream.counters).items():
                totals[name] = totals.get(name, 0) + count
        self.progress.counters = totals
        self.progress.streams = {name: stream.progress for name, stream in streams.items() if stream.live}

    def _each(self, method: str, *args: object, stream: str | None = None) -> None:
        """Call all sinks, or those that ``stream`` concerns."""
        for sink in list(self._sinks):
            if stream is None or sink.stream in (None, stream):
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
            of = "" if sink.stream is None else f" of {sink.stream}"
            self.failures.append(f"{type(sink).__name__}{of} stopped: {error}")
            if method != "close":
                self._close_quietly(sink)

    def _close_quietly(self, sink: Sink) -> None:
        try:
            sink.close()
        except (OSError, OnlookerError):
            return  # it has been reported; whatever broke it breaks its end too
