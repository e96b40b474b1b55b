"""Runs a graph in this process: a thread per source and per stage, queues between them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onlooker.operators.contract import ClipRequest, Control, Source

from ..errors import OnlookerError
from ..graph import Edge, Graph
from .batch import Batch, SourceSpec, make_source, read_stream
from .glibc import keep_freed_memory
from .stage import Stage
from .streams import check_addition, not_opened

__all__ = ["LocalRunner"]

_POLL = 0.1
"""Seconds after which a blocked thread looks whether the run was abandoned."""
_LEAVE = 60.0
"""Seconds that threads may take to leave: one that is loading models cannot be stopped."""


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _Abandoned(Exception):
    """The consumer is gone; threads unwind with it and nobody sees it."""


@dataclass(frozen=True)
class _Feed:
    """One stream that is being read."""

    source: Source[Any]
    thread: threading.Thread


class LocalRunner:
    """One process, no Ray. Decoding, the models and whatever consumes the batches overlap in threads.

    torch and the decoders release the interpreter lock in their kernels, so threads are enough. Memory stays bounded:
    where sources wait, by queues that block the faster side; where they are live, by credits, ``in_flight`` for each
    stream, so that no stream can fill a queue that another one needs.
    """

    def __init__(self, graph: Graph, sinks: frozenset[Edge] = frozenset()) -> None:
        """Prepare to run ``graph``.

        Args:
            graph: what to run.
            sinks: edges that the consumer of the batches reads, besides events.
        """
        self._graph = graph
        self._sinks = sinks
        self._abandoned = threading.Event()
        self._sources_told = threading.Semaphore(0)
        """Once for each source and stage: the source was opened, or could not be."""
        self._any_open = threading.Event()
        self._lock = threading.Lock()
        self._feeds: dict[str, _Feed] = {}
        """The streams that have not ended; under the lock, as are the two below."""
        self._stages_opening = len(graph.stages)
        self._running = self._stay = False
        self._queues: list[queue.Queue[Batch | _Failure]] = []
        self._interrupted = False
        self._controls: queue.SimpleQueue[Control] = queue.SimpleQueue()

    def run(self, specs: list[SourceSpec], *, stay: bool = False) -> Iterator[Batch]:
        """Run to the end of all streams, or with ``stay`` until interrupted, and yield what leaves the last stage.

        Raises:
            Exception: whatever a source or an operator raised, in the caller's thread.
        """
        keep_freed_memory()
        stages = self._graph.stages
        depth = 0 if self._graph.live else self._graph.runtime.in_flight * len(specs)
        self._queues = [queue.Queue(maxsize=depth) for _ in range(len(stages) + 1)]
        feeds = [self._make_feed(spec) for spec in specs]
        workers = [
            threading.Thread(target=self._work, args=(i, len(specs)), name=f"stage-{stage}", daemon=True)
            for i, stage in enumerate(stages)
        ]
        with self._lock:
            self._running, self._stay = True, stay
            self._feeds = {spec.stream: feed for spec, feed in zip(specs, feeds, strict=True)}
        if self._interrupted:
            self.interrupt()
        for thread in [*(feed.thread for feed in feeds), *workers]:
            thread.start()
        try:
            yield from self._results()
        finally:
            self._abandoned.set()
            with self._lock:
                self._running = False
            self.interrupt()
            for feed in list(self._feeds.values()):
                feed.source.release()
            for waiting in self._queues:  # for whoever waits there
                with contextlib.suppress(queue.Full):
                    waiting.put_nowait(_Failure(_Abandoned()))
            for thread in [*(feed.thread for feed in self._feeds.values()), *workers]:
                thread.join(timeout=_LEAVE)

    def interrupt(self) -> None:
        """End all streams soon, with reason ``interrupted``; what was read is still processed."""
        self._interrupted = True
        for feed in list(self._feeds.values()):
            feed.source.interrupt()

    def send(self, control: Control) -> None:
        """Hand a control packet to the nodes of its stream, or of all streams; never blocks, callable any time."""
        self._controls.put(control)

    def add(self, spec: SourceSpec) -> None:
        """Watch one more live stream; from any thread.

        Raises:
            UsageError: the run is not going on, the graph is for files, or there is such a stream.
        """
        feed = self._make_feed(spec)
        with self._lock:
            over = not self._running or self._interrupted
            check_addition(self._graph, spec.stream, self._feeds, over=over)
            self._feeds[spec.stream] = feed
            if not self._stages_opening:
                feed.source.credit(self._graph.runtime.in_flight)
            feed.thread.start()
        if self._interrupted:  # meanwhile
            feed.source.interrupt()

    def remove(self, stream: str) -> None:
        """End one stream soon; what was read is still processed. From any thread; harmless if it has ended."""
        with self._lock:
            feed = self._feeds.get(stream)
        if feed is not None:
            feed.source.interrupt()

    def clip(self, stream: str, request: ClipRequest) -> None:
        """Ask the source of a live stream for a clip. See ``Runner.clip``."""
        feed = self._feeds.get(stream)
        if feed is not None:
            feed.source.clip(request)

    def release(self, stream: str) -> None:
        """Let a stream go that has ended. See ``Runner.release``."""
        feed = self._feeds.get(stream)
        if feed is not None:
            feed.source.release()
            self._end(stream)

    def _make_feed(self, spec: SourceSpec) -> _Feed:
        source = make_source(self._graph.source, spec)
        return _Feed(
            source, threading.Thread(target=self._read, args=(source, spec), name=f"source-{spec.stream}", daemon=True)
        )

    def _results(self) -> Iterator[Batch]:
        """What leaves the last stage, and for each of it the credit for the next."""
        while self._goes_on():
            try:
                item = self._queues[-1].get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(item, _Failure):
                raise item.error
            feed = self._feeds.get(item.stream)
            if feed is not None and item.frames:
                feed.source.credit(1, item.arrival)
            if item.final and not (feed is not None and feed.source.lingers):
                self._end(item.stream)
            yield item

    def _goes_on(self) -> bool:
        with self._lock:
            self._running = bool(self._feeds) or (self._stay and not self._interrupted)
            return self._running

    def _end(self, stream: str) -> None:
        with self._lock:
            feed = self._feeds.pop(stream, None)
        if feed is not None:
            feed.thread.join(timeout=10)

    def _put(self, position: int, item: Batch | _Failure) -> None:
        while not self._abandoned.is_set():
            try:
                self._queues[position].put(item, timeout=_POLL)
                return
            except queue.Full:
                continue
        raise _Abandoned

    def _get(self, position: int) -> Batch | _Failure:
        while not self._abandoned.is_set():
            try:
                return self._queues[position].get(timeout=_POLL)
            except queue.Empty:
                continue
        raise _Abandoned

    def _read(self, source: Source[Any], spec: SourceSpec) -> None:
        opened, results = False, len(self._graph.stages)
        try:
            for batch in read_stream(self._graph, source, self._sinks):
                if not opened:
                    opened = True
                    self._any_open.set()
                    self._sources_told.release(results)
                self._put(results if batch.news else 0, batch)
        except _Abandoned:
            pass
        except BaseException as error:
            if opened or not isinstance(error, OnlookerError):
                self._fail(0 if opened else results, error)
                return
            with contextlib.suppress(_Abandoned):
                self._put(results, not_opened(self._graph, spec, error))
            self._sources_told.release(results)

    def _work(self, position: int, sources: int) -> None:
        try:
            self._await_sources(sources)
            stage = Stage(self._graph, self._graph.stages[position], self._sinks)
            stage.open()
            try:
                self._opened()
                while True:
                    for item in [*self._commands(position), self._get(position)]:
                        if isinstance(item, _Failure):
                            raise item.error
                        for batch in stage.step([item]):
                            self._put(position + 1, batch)
            finally:
                stage.close()
        except _Abandoned:
            pass
        except BaseException as error:
            self._fail(position + 1, error)

    def _opened(self) -> None:
        """A stage is ready. Only when all are, live frames may come: they would grow old while models load."""
        with self._lock:
            self._stages_opening -= 1
            if not self._stages_opening:
                for feed in self._feeds.values():
                    feed.source.credit(self._graph.runtime.in_flight)

    def _commands(self, position: int) -> Iterator[Batch]:
        """What ``send`` was given since the last batch; it enters at the first stage, past the queue."""
        while position == 0 and not self._controls.empty():
            control = self._controls.get()
            for stream in list(self._feeds):
                if control.stream in (None, stream):
                    yield Batch(stream, control=(control,))

    def _await_sources(self, count: int) -> None:
        """Sources that cannot be opened are reported at once; where none can, no models are loaded."""
        while count:
            if self._abandoned.is_set():
                raise _Abandoned
            count -= self._sources_told.acquire(timeout=_POLL)
        while not self._any_open.wait(_POLL):
            if self._abandoned.is_set():
                raise _Abandoned

    def _fail(self, position: int, error: BaseException) -> None:
        """Pass an error downstream behind what was already done, so that nothing produced is lost."""
        try:
            self._put(position, _Failure(error))
        except _Abandoned:
            return
