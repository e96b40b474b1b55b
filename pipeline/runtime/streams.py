"""Streams that come, go, or never begin: what both runners say about them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterable

from onlooker.operators.contract import ClipRequest, Control, End, SourceInfo

from ..errors import OnlookerError, UsageError
from ..graph import Graph
from .batch import Batch, SourceSpec

__all__ = ["Requests", "check_addition", "not_opened"]


def check_addition(graph: Graph, stream: str, streams: Collection[str], *, over: bool) -> None:
    """Say whether a run may get one more stream.

    Args:
        graph: what runs.
        stream: name of the new one.
        streams: names of those that have not ended.
        over: whether the run has ended or is about to.

    Raises:
        UsageError: it may not.
    """
    if not graph.live:
        raise UsageError("streams can be added to live sources only; start another run for a file.")
    if over:
        raise UsageError(f"stream {stream!r} cannot be added: the run is over.")
    if stream in streams:
        raise UsageError(f"there is a stream {stream!r} already; remove it first, or choose another name.")


def not_opened(graph: Graph, spec: SourceSpec, error: OnlookerError) -> Batch:
    """The only batch of a stream whose source could not be opened."""
    live = graph.live
    info = SourceInfo(
        spec.stream, round(time.time() * 1000) if live else 0, 0, 0, time_source="host" if live else "file", live=live
    )
    return Batch(spec.stream, info=info, end=End("not_opened", 0.0, message=str(error)), failure=error, news=live)


class Requests:
    """What other threads and signal handlers ask of a run.

    The run's own thread, which may be in the middle of a call that must not be disturbed, looks here now and then.
    """

    def __init__(self) -> None:
        """Begin before the run."""
        self.interrupted = threading.Event()
        self.controls: deque[Control] = deque()
        self.changes: deque[SourceSpec | str] = deque()
        """In their order: streams to add, and names of streams to remove."""
        self.clips: deque[tuple[str, ClipRequest]] = deque()
        """Names of streams, and what is asked of their sources."""
        self.released: deque[str] = deque()
        """Names of streams that have ended and are asked for nothing more."""
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._running = self._stay = False

    def begin(self, streams: Iterable[str], *, stay: bool = False) -> None:
        """The run begins with these streams, and ends with the last of them unless it is to ``stay``."""
        with self._lock:
            self._open, self._stay, self._running = set(streams), stay, True

    def add(self, graph: Graph, spec: SourceSpec) -> None:
        """Ask for one more stream.

        Raises:
            UsageError: see ``check_addition``.
        """
        with self._lock:
            check_addition(graph, spec.stream, self._open, over=not self._running or self.interrupted.is_set())
            self._open.add(spec.stream)
            self.changes.append(spec)

    def remove(self, stream: str) -> None:
        """Ask for the end of a stream; harmless if it has ended."""
        with self._lock:
            if stream in self._open:
                self.changes.append(stream)

    def ended(self, stream: str) -> None:
        """A stream is over, so that its name is free."""
        with self._lock:
            self._open.discard(stream)
            self._running = bool(self._open) or self._stay

    def close(self) -> None:
        """The run is over."""
        with self._lock:
            self._running = False
