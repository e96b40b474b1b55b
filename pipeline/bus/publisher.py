"""The publishing thread of a bus: takes events, commits them to the store, and only then sends them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

import zmq

from .alarms import Alarms
from .guard import Guard
from .intake import Given, Intake
from .protocol import HEARTBEAT, Header, dumps, topic
from .record import Record, Stored
from .sockets import Wake
from .store import EventStore
from .store_schema import StoreError, StoreFull

__all__ = ["Publisher"]

_RETRY_STORE = 1.0
"""Seconds until storing is tried again after it failed."""
_PRUNE_EVERY = 5.0
_PRUNE_AGAIN = 0.05
_PRUNE_SECONDS = 0.005
_LINGER = 1000  # ms for which what is sent may still travel when the bus ends
_RECENT = 60.0
"""Seconds for which a heartbeat names the last event of a stream."""
_MOST_STREAMS = 4096


class Publisher:
    """Owns the XPUB socket. Everything but the queue and the counters belongs to its thread.

    Commit comes before sending, so whatever a subscriber has seen survives a crash. Events are committed in groups:
    all that have come while the group before was committed, so a single event waits for nothing.
    """

    def __init__(
        self,
        guard: Guard,
        store: EventStore,
        alarms: Alarms,
        *,
        heartbeat: float,
        committed: Callable[[], None],
        notice: Callable[[str], None],
    ) -> None:
        """Begin to publish.

        Args:
            guard: an XPUB that is bound; the publisher closes it.
            store: open.
            alarms: for what goes wrong with the store.
            heartbeat: seconds between two heartbeats.
            committed: called after each commit, from the thread; must not block.
            notice: called with one line where the user should know something.
        """
        self._guard, self._socket, self._store, self._alarms = guard, guard.socket, store, alarms
        self._heartbeat, self._committed, self._notice = heartbeat, committed, notice
        self._wake = Wake()
        self.intake = Intake(self._wake)
        self.published = 0
        """Events sent."""
        self.unstored = 0
        """How many of them could not be stored."""
        self._topics: dict[tuple[str, str], bytes] = {}
        self._recent: dict[str, tuple[int, float]] = {}
        """Stream -> its last number, and when it was sent."""
        self._last = store.last_seq
        self._retry_at = self._next_heartbeat = self._next_prune = 0.0
        self._missed = 0
        """Events that were not stored since storing failed."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="onlooker-bus-publish", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still publishes."""
        return self._thread.is_alive()

    @property
    def subscribers(self) -> int:
        """Connections there are."""
        return len(self._guard)

    @property
    def cut(self) -> int:
        """Connections that went too far."""
        return self._guard.cut

    def stop(self) -> None:
        """Publish what waits, send a last heartbeat and close the socket."""
        self.intake.close("the bus is closed.")
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._wake.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake.fileno(), zmq.POLLIN)
        try:
            while not (self._stopping and not len(self.intake)):
                self._turn(poller)
            self._beat()
        except Exception as error:
            why = f"the bus has stopped: {type(error).__name__}: {error}"
            self._notice(why)
            self.intake.close(why)
        finally:
            self._guard.close(linger=_LINGER)

    def _turn(self, poller: zmq.Poller) -> None:
        due = min(self._next_heartbeat, self._next_prune)
        wait = 0.0 if len(self.intake) else max(due - time.monotonic(), 0.0)
        ready = dict(poller.poll(math.ceil(wait * 1000)))
        if self._wake.fileno() in ready:
            self._wake.clear()
        if self._socket in ready:
            self._guard.read_subscriptions()
        given = self.intake.take()
        if given:
            self._publish(given)
        now = time.monotonic()
        if now >= self._next_heartbeat:
            self._guard.look()
            self._beat()
            self._next_heartbeat = now + self._heartbeat
        self._prune(now)

    def _publish(self, given: Sequence[Given]) -> None:
        records = [record for group in given for record in group.records]
        runs: dict[str, int] = {}
        for group in given:
            runs.update(group.runs or {})
        stored = self._commit(records, runs) if records or runs or self._alarms.open else []
        if stored is None:
            stored = self._unnumbered(records)
            self.unstored += len(stored)
            self._missed += len(stored)
        elif stored:
            self._last = self._store.last_seq
            self._committed()
        self._send(stored)
        for group in given:
            if group.done is not None:
                self._call(group.done)

    def _call(self, done: Callable[[], None]) -> None:
        try:
            done()
        except StoreError as error:
            self._tell_failure(error)

    def _commit(self, records: list[Record], runs: dict[str, int]) -> list[Stored] | None:
        """Commit; None where the store cannot take them now."""
        if time.monotonic() < self._retry_at:
            return None
        endings = [self._alarms.ending(code, self._recovered()) for code in self._alarms.open]
        try:
            stored = self._store.append([*records, *endings] if endings else records, runs)
        except StoreError as error:
            self._retry_at = time.monotonic() + _RETRY_STORE
            self._tell_failure(error)
            return None
        for code in self._alarms.open:
            self._alarms.over(code)
        if endings:
            self._notice(self._recovered())
            self._missed = 0
        return stored

    def _recovered(self) -> str:
        return f"events are stored again; {self._missed} were told to subscribers alone."

    def _tell_failure(self, error: StoreError) -> None:
        code = "disk_full" if isinstance(error, StoreFull) else "store_failed"
        alarm = self._alarms.begin(code, f"events are not stored: {error}")
        if alarm is not None:
            self._notice(f"events are not stored, only told to whoever listens: {error}")
            self._send(self._unnumbered([alarm]))

    def _unnumbered(self, records: Sequence[Record]) -> list[Stored]:
        """Events as they are told when they cannot be stored."""
        epoch, now = self._store.epoch, time.time()
        return [Stored(r.stream, r.kind, Header(epoch, None, 0, r.run, now), r.body) for r in records]

    def _send(self, stored: Sequence[Stored]) -> None:
        """Send; a subscriber that does not keep up loses messages, nobody waits for it."""
        send, now = self._socket.send, time.monotonic()
        for stream, kind, header, body in stored:
            known = self._topics.get((stream, kind))
            if known is None:
                known = self._remember_topic(stream, kind)
            send(known, zmq.SNDMORE)
            send(header.to_bytes(), zmq.SNDMORE)
            send(body)
            if header.seq is not None:
                self._recent[stream] = (header.seq, now)
        self.published += len(stored)

    def _remember_topic(self, stream: str, kind: str) -> bytes:
        if len(self._topics) >= _MOST_STREAMS:
            self._topics.clear()
        return self._topics.setdefault((stream, kind), topic(stream, kind))

    def _beat(self) -> None:
        if self._alarms.open:
            self._publish([])  # see whether there is room again
        since = time.monotonic() - _RECENT
        recent = [(stream, seq, at) for stream, (seq, at) in self._recent.items() if at >= since]
        recent = sorted(recent, key=lambda one: one[2])[-_MOST_STREAMS:]
        self._recent = {stream: (seq, at) for stream, seq, at in recent}
        header = {"epoch": self._store.epoch, "seq": self._last, "time": time.time()}
        body = {"streams": {stream: seq for stream, seq, _ in recent}}
        self._socket.send_multipart([HEARTBEAT, dumps(header), dumps(body)])

    def _prune(self, now: float) -> None:
        """Keep the caps of the store, a little at a time, and at least as fast as events come."""
        try:
            if now >= self._next_prune:
                deleted = self._store.prune(_PRUNE_SECONDS)
                self._next_prune = now + (_PRUNE_AGAIN if deleted else _PRUNE_EVERY)
            elif self._store.crowded:
                self._store.prune(0.0)
        except StoreError as error:
            self._next_prune = now + _PRUNE_EVERY
            self._tell_failure(error)
