"""The bus: takes events, stores them, publishes them, and answers questions about them."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import zmq

from onlooker import __version__

from .alarms import Alarms
from .bridges.outbox import Bridge, close_bridges
from .guard import Guard
from .ingest import DEAD_RUN, Ingest
from .intake import GROUP, Given
from .keys import ServerKeys
from .protocol import (
    BODY_BYTES,
    HEARTBEAT_SECONDS,
    HIGH_WATER,
    PAGE_BYTES,
    PAGE_EVENTS,
    REQUEST_BYTES,
    VERSION,
    Addresses,
)
from .publisher import Publisher
from .record import Record
from .requests import Command, RequestError, TakeCommand
from .responder import Responder
from .sockets import DEAD_AFTER, BusError, bind, check_open
from .store import EventStore
from .zap import Doorkeeper

__all__ = ["BusServer"]

_ALARM_RUN = "bus"
_HANDSHAKE = 1024  # bytes in a frame that a subscriber sends; the largest are those of CURVE's handshake
_MESSAGES = 1000  # subscriptions of a client that wait for us
_REQUESTS = 64  # requests of a client that wait for us, of 64 KiB each at most
_PAGES = 4  # replies that wait for a client, of 4 MiB each at most
_UNFINISHED = 16 << 20  # bytes of a client that are no whole message yet, or wait


def _to_stderr(line: str) -> None:
    print(f"onlooker: {line}", file=sys.stderr, flush=True)


class BusServer:
    """Serves one address. ``put`` may be called from any thread."""

    def __init__(
        self,
        address: str,
        store: EventStore,
        *,
        keys: ServerKeys | None = None,
        commands: TakeCommand | bool = False,
        ingest: bool = False,
        bridges: Sequence[Bridge] = (),
        dead_run: float = DEAD_RUN,
        heartbeat: float = HEARTBEAT_SECONDS,
        high_water: int = HIGH_WATER,
        dead_after: float = DEAD_AFTER,
        notice: Callable[[str], None] = _to_stderr,
    ) -> None:
        """Check the address; nothing is opened yet.

        Args:
            address: ``tcp://HOST:PORT`` or ``ipc://PATH``.
            store: not open yet; the server opens and closes it.
            keys: CURVE keys; without them only this machine may be served.
            commands: takes commands for the pipelines; True hands them to the runs of the ingest; False takes none.
            ingest: whether pipelines of other processes may hand over their events.
            bridges: carry events further; started and closed with the bus.
            dead_run: seconds of silence after which such a pipeline is taken for dead.
            heartbeat: seconds between two heartbeats.
            high_water: messages that wait for a slow subscriber before it loses some.
            dead_after: seconds without a sign of life that end a connection.
            notice: called, from any thread, with one line where the user should know something.

        Raises:
            UsageError: the address is none, or needs keys.
        """
        self.addresses = Addresses.of(address)
        check_open(self.addresses, keys)
        self.store = store
        self._keys, self._commands, self._notice = keys, commands, notice
        self._takes_events, self._dead_run, self._bridges = ingest, dead_run, bridges
        self._ingest: Ingest | None = None
        self._heartbeat, self._high_water, self._dead_after = heartbeat, high_water, dead_after
        self._on_commit: list[Callable[[], None]] = []
        self.alarms = Alarms(_ALARM_RUN)
        self._doorkeeper: Doorkeeper | None = None
        self._closing: ExitStack | None = None

    def start(self) -> None:
        """Open the store and the sockets, and serve.

        Raises:
            StoreError: the store cannot be used.
            BusError: the address cannot be served.
        """
        with ExitStack() as made:
            self.store.open()
            made.callback(self.store.close)
            context: zmq.Context[Any] = zmq.Context()
            made.callback(context.term)
            if self._keys is not None:
                self._doorkeeper = Doorkeeper(context, self._keys.allowed)
                made.callback(self._doorkeeper.close)
            made.callback(close_bridges, self._bridges)  # when all that was published has been committed
            for bridge in self._bridges:
                self.on_commit(bridge.wake)
            self._open(context, made)
            for bridge in self._bridges:
                bridge.start(self.store, self._notice)
            self._closing = made.pop_all()

    def _open(self, context: zmq.Context[Any], made: ExitStack) -> None:
        """Open the sockets and start their threads; what is to be closed goes to ``made``."""
        events = self._bind(
            context, zmq.XPUB, self.addresses.events, largest=_HANDSHAKE, send=self._high_water, receive=_MESSAGES
        )
        made.callback(events.close)
        requests = self._bind(
            context, zmq.ROUTER, self.addresses.requests, largest=REQUEST_BYTES, send=_PAGES, receive=_REQUESTS
        )
        made.callback(requests.close)
        ingest = (
            None
            if not self._takes_events
            else self._bind(
                context, zmq.ROUTER, self.addresses.ingest, largest=BODY_BYTES, send=_MESSAGES, receive=_PAGES
            )
        )
        if ingest is not None:
            made.callback(ingest.close)
        else:
            for run in self.store.open_runs():  # nobody can go on with them
                self.store.end_run(run)
        commands = self._pass_on if self._commands is True else self._commands or None
        self._responder = Responder(
            requests,
            self.store.path,
            hello=self._hello,
            epoch=self.store.epoch,
            commands=commands,
            keys=self._keys,
            notice=self._notice,
        )
        made.callback(self._responder.stop)
        self._publisher = Publisher(
            events,
            self.store,
            self.alarms,
            heartbeat=self._heartbeat,
            committed=self._tell_commit,
            notice=self._notice,
        )
        made.callback(self._publisher.stop)
        if ingest is not None:
            self._ingest = Ingest(
                ingest,
                self.store,
                self.alarms,
                self.give,
                keys=self._keys,
                dead_run=self._dead_run,
                notice=self._notice,
            )
            made.callback(self._ingest.stop)

    def _bind(
        self, context: zmq.Context[Any], kind: int, address: str, *, largest: int, send: int, receive: int
    ) -> Guard:
        return bind(
            context,
            kind,
            address,
            self._keys,
            largest=largest,
            send=send,
            receive=receive,
            unfinished=_UNFINISHED,
            dead_after=self._dead_after,
        )

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call this after each commit, from the publishing thread; it must not block."""
        self._on_commit.append(callback)

    def put(self, records: Sequence[Record], timeout: float | None = None) -> int:
        """Take events to be published in this order; waits while the queue is full.

        Args:
            records: the events.
            timeout: seconds to wait for room at most; None waits for as long as it takes.

        Returns:
            How many were taken: all, unless the time was over.

        Raises:
            BusError: the bus has stopped.
        """
        until = None if timeout is None else time.monotonic() + timeout
        for first in range(0, len(records), GROUP):
            left = None if until is None else max(until - time.monotonic(), 0.0)
            if not self.give(Given(records[first : first + GROUP]), left):
                return first
        return len(records)

    def give(self, given: Given, timeout: float | None = None) -> bool:
        """Take events that are committed together; see ``Intake.put``."""
        return self._publisher.intake.put(given, timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was put has been committed and sent; returns False if it was not in time.

        Raises:
            BusError: the bus has stopped.
        """
        sent = threading.Event()
        until = math.inf if timeout is None else time.monotonic() + timeout
        if not self.give(Given((), done=sent.set), timeout):
            return False
        while not sent.wait(min(max(until - time.monotonic(), 0.0), 0.5)):
            if not self._publisher.alive:
                raise BusError("the bus has stopped.")
            if time.monotonic() >= until:
                return False
        return True

    @property
    def subscribers(self) -> int:
        """Connections to the socket of events."""
        return self._publisher.subscribers

    def counters(self) -> dict[str, int]:
        """What has happened since the start."""
        return {
            "published": self._publisher.published,
            "unstored": self._publisher.unstored,
            "waiting": len(self._publisher.intake),
            "subscribers": self._publisher.subscribers,
            "requests": self._responder.answered,
            "malformed": self._responder.malformed,
            "runs": 0 if self._ingest is None else self._ingest.runs,
            "cut": self._publisher.cut + self._responder.cut + (0 if self._ingest is None else self._ingest.cut),
            "refused": 0 if self._doorkeeper is None else self._doorkeeper.refused,
        }

    def close(self, linger: float = 0.0) -> None:
        """Publish what waits and stop; harmless when repeated.

        Args:
            linger: seconds for which the bus goes on to answer after the last event, if anybody listens.
        """
        if self._closing is None:
            return
        if linger > 0 and self.flush(linger) and self.subscribers:
            time.sleep(linger)
        closing, self._closing = self._closing, None
        closing.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _hello(self) -> dict[str, Any]:
        return {
            "protocol": VERSION,
            "server": f"onlooker {__version__}",
            "epoch": self.store.epoch,
            "seq": self.store.last_seq,
            "oldest": self.store.oldest_seq,
            "heartbeat": self._heartbeat,
            "limits": {
                "request_bytes": REQUEST_BYTES,
                "page_events": PAGE_EVENTS,
                "page_bytes": PAGE_BYTES,
                "body_bytes": BODY_BYTES,
            },
        }

    def _pass_on(self, command: Command, done: Callable[[dict[str, Any] | RequestError], None]) -> None:
        if self._ingest is None:
            done(RequestError("unavailable", "the bus is starting"))
        else:
            self._ingest.command(command, done)

    def _tell_commit(self) -> None:
        for callback in self._on_commit:
            callback()
