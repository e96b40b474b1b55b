"""The bounded queue between those who make events and the thread that publishes them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .record import Record
from .sockets import BusError, Wake

__all__ = ["GROUP", "Given", "Intake"]

GROUP = 256
"""Events that are committed together at most."""
_EVENTS = 8192
_BYTES = 64 << 20


class Given(NamedTuple):
    """Events that belong together: all of them are committed at once."""

    records: Sequence[Record]
    runs: Mapping[str, int] | None = None
    """Highest producer number per run, see ``EventStore.append``."""
    done: Callable[[], None] | None = None
    """Called once they are committed and sent, from the publishing thread."""


class Intake:
    """Takes events from any thread until it is full, and then makes them wait."""

    def __init__(self, wake: Wake, *, events: int = _EVENTS, size: int = _BYTES) -> None:
        """Make an empty queue.

        Args:
            wake: wakes the thread that takes from it.
            events: how many events may wait.
            size: how many bytes of events may wait; one that is larger alone waits alone.
        """
        self._wake, self._most, self._largest = wake, events, size
        self._waiting: deque[tuple[Given, int]] = deque()
        self._events = self._bytes = 0
        self._changed = threading.Condition()
        self._closed: str | None = None

    def __len__(self) -> int:
        """How many events wait."""
        return self._events

    def put(self, given: Given, timeout: float | None = None) -> bool:
        """Add at most ``GROUP`` events; waits while there is no room. Returns False if there was none in time.

        Args:
            given: the events.
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            BusError: the bus has stopped.
            ValueError: these are more than are ever committed together.
        """
        if len(given.records) > GROUP:
            raise ValueError(f"at most {GROUP} events are committed together, got {len(given.records)}")
        size = sum(len(record.body) for record in given.records)
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._closed is None and not self._has_room(len(given.records), size):
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
            if self._closed is not None:
                raise BusError(self._closed)
            self._waiting.append((given, size))
            self._events += len(given.records)
            self._bytes += size
            first = len(self._waiting) == 1
        if first:
            self._wake.set()
        return True

    def _has_room(self, events: int, size: int) -> bool:
        return not self._waiting or (self._events + events <= self._most and self._bytes + size <= self._largest)

    def take(self) -> list[Given]:
        """What is to be committed next, at most ``GROUP`` events."""
        taken: list[Given] = []
        with self._changed:
            room = GROUP
            while self._waiting and len(self._waiting[0][0].records) <= room:
                given, size = self._waiting.popleft()
                taken.append(given)
                room -= len(given.records)
                self._events -= len(given.records)
                self._bytes -= size
            if taken:
                self._changed.notify_all()
        return taken

    def close(self, why: str) -> None:
        """Take nothing any more; ``put`` raises ``BusError`` with this line. What waits can still be taken."""
        with self._changed:
            self._closed = self._closed or why
            self._changed.notify_all()
