"""Runs a graph in this process: a thread per source and per stage, bounded queues between them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onlooker.operators.contract import Control, Source

from ..graph import Edge, Graph
from .batch import Batch, SourceSpec, make_source, read_stream
from .glibc import keep_freed_memory
from .stage import Stage

__all__ = ["LocalRunner"]

_POLL = 0.1
"""Seconds after which a blocked thread looks whether the run was abandoned."""


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _Abandoned(Exception):
    """The consumer is gone; threads unwind with it and nobody sees it."""


class LocalRunner:
    """One process, no Ray. Decoding, the models and whatever consumes the batches overlap in threads.

    torch and the decoders release the interpreter lock in their kernels, so threads are enough; a full queue blocks
    the faster side, so memory stays bounded and nothing is lost.
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
        self._sources_open = threading.Semaphore(0)
        self._sources: list[Source[Any]] = []
        self._queues: list[queue.Queue[Batch | _Failure]] = []
        self._streams: list[str] = []
        self._interrupted = False
        self._controls: queue.SimpleQueue[Control] = queue.SimpleQueue()

    def run(self, specs: list[SourceSpec]) -> Iterator[Batch]:
        """Run to the end of all streams and yield what leaves the last stage.

        Raises:
            Exception: whatever a source or an operator raised, in the caller's thread.
        """
        keep_freed_memory()
        stages = self._graph.stages
        depth = self._graph.runtime.in_flight * len(specs)
        self._streams = [spec.stream for spec in specs]
        self._queues = [queue.Queue(maxsize=depth) for _ in range(len(stages) + 1)]
        self._sources = [make_source(self._graph.source, spec) for spec in specs]
        threads = [
            threading.Thread(target=self._read, args=(source,), name=f"source-{spec.stream}", daemon=True)
            for source, spec in zip(self._sources, specs, strict=True)
        ]
        threads += [
            threading.Thread(target=self._work, args=(i, len(specs)), name=f"stage-{stage}", daemon=True)
            for i, stage in enumerate(stages)
        ]
        if self._interrupted:
            self.interrupt()
        for thread in threads:
            thread.start()
        open_streams = len(specs)
        try:
            while open_streams:
                item = self._queues[-1].get()
                if isinstance(item, _Failure):
                    raise item.error
                open_streams -= item.end is not None
                yield item
        finally:
            self._abandoned.set()
            self.interrupt()
            for thread in threads:
                thread.join(timeout=10)

    def interrupt(self) -> None:
        """End all streams soon, with reason ``interrupted``; what was read is still processed."""
        self._interrupted = True
        for source in self._sources:
            source.interrupt()

    def send(self, control: Control) -> None:
        """Hand a control packet to the nodes of its stream, or of all streams; never blocks, callable any time."""
        self._controls.put(control)

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

    def _read(self, source: Source[Any]) -> None:
        opened = False
        try:
            for batch in read_stream(self._graph, source, self._sinks):
                if not opened:
                    self._sources_open.release(len(self._graph.stages))
                    opened = True
                self._put(0, batch)
        except _Abandoned:
            pass
        except BaseException as error:
            self._fail(0 if opened else len(self._graph.stages), error)

    def _work(self, position: int, open_streams: int) -> None:
        try:
            self._await_sources(open_streams)
            stage = Stage(self._graph, self._graph.stages[position], self._sinks)
            stage.open()
            try:
                while open_streams:
                    for item in [*self._commands(position), self._get(position)]:
                        if isinstance(item, _Failure):
                            raise item.error
                        open_streams -= item.end is not None
                        for batch in stage.step([item]):
                            self._put(position + 1, batch)
            finally:
                stage.close()
        except _Abandoned:
            pass
        except BaseException as error:
            self._fail(position + 1, error)

    def _commands(self, position: int) -> Iterator[Batch]:
        """What ``send`` was given since the last batch; it enters at the first stage, past the queue."""
        while position == 0 and not self._controls.empty():
            control = self._controls.get()
            for stream in self._streams:
                if control.stream in (None, stream):
                    yield Batch(stream, control=(control,))

    def _await_sources(self, count: int) -> None:
        """A source that cannot be opened is reported at once, not after seconds of loading models."""
        while count:
            if self._abandoned.is_set():
                raise _Abandoned
            count -= self._sources_open.acquire(timeout=_POLL)

    def _fail(self, position: int, error: BaseException) -> None:
        """Pass an error downstream behind what was already done, so that nothing produced is lost."""
        try:
            self._put(position, _Failure(error))
        except _Abandoned:
            return
