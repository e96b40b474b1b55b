"""A bridge: events out of the store to another system, each at least once and in order.

The store is the outbox. A bridge keeps its place there, reads what comes after it, hands it over, and moves its place
only when the other side has acknowledged. What a crash, a network or the other side loses on the way is sent again. A
bridge has one thread and one reader of the store, so the bus never waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from onlooker.operators.backoff import Backoff

from ..record import Stored
from ..store import EventStore, StoreError
from ..store_read import Page, StoreReader
from .failure import BridgeError, Failure, Refused, Unreachable
from .target import Context, Target

__all__ = ["Bridge", "BridgeStatus", "MakeBackoff", "check_distinct", "close_bridges"]

State = Literal["starting", "delivering", "failing", "closed"]
MakeBackoff = Callable[[], Backoff]
_log = logging.getLogger(__name__)
_POLL = 1.0  # seconds; the longest that a commit goes unseen if nobody calls `wake`
_GRACE = 0.2  # seconds beyond the deadline before the connection is cut
_ABORT = 20.0  # seconds; the look-up of a name or a handshake cannot be cut
_LONGEST_WAIT = 60.0  # seconds between two attempts
_KEEP = 1.0  # seconds; how often a place is kept while nothing that was passed over had to be sent


@dataclass(frozen=True)
class BridgeStatus:
    """Where a bridge stands."""

    shown: str
    state: State
    reason: str
    """Why it fails; empty where it does not."""
    sent: int
    """Events that the other side has acknowledged since the start."""
    refused: int
    """Events that the other side did not want and that were left out."""
    lost: int
    """Numbers, at most, that the caps of the store deleted before they could be sent."""
    failures: int
    behind: int
    """Numbers of the store that it has not looked at yet."""


@dataclass
class _Counters:
    sent: int = 0
    refused: int = 0
    lost: int = 0
    failures: int = 0
    reason: str = field(default="")


class Bridge:
    """Delivers events of a store to a target until it is closed.

    Args:
        target: the other side.
        name: under which its place is kept in the store.
        warning: something to be told at the start.
        since: where it begins if the store does not know the name: at what comes ``now``, or at the ``oldest`` event.
        backoff: makes what says how long it waits after failures.
    """

    def __init__(
        self,
        target: Target,
        name: str,
        *,
        warning: str = "",
        since: Literal["now", "oldest"] = "now",
        backoff: MakeBackoff | None = None,
    ) -> None:
        """Prepare; nothing is connected before `start`."""
        self.shown = target.shown
        self.name = name
        self._target = target
        self._warning, self._since = warning, since
        self._backoff = backoff() if backoff else Backoff(1.0, _LONGEST_WAIT)
        self._counters = _Counters()
        self._state: State = "starting"
        self._woken, self._closing, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._deadline = float("inf")
        self._opened = False
        self._refusals = 0
        self._told_refusal = ""
        self._again: int | None = None
        """Where the batch ended that has to be sent again: another attempt is at the same events."""
        self._thread: threading.Thread | None = None

    def start(self, store: EventStore, notice: Callable[[str], None] = lambda line: None) -> None:
        """Begin to deliver; returns at once.

        Args:
            store: an open store; it has to stay open until `close` has returned.
            notice: told one line when something changes; called on the bridge's thread.

        Raises:
            StoreError: the store cannot be read.
        """
        self._store, self._notice = store, notice
        kept = store.cursor(self._cursor)
        if kept:
            self._position, self._kept_at = min(kept - 1, store.last_seq), time.monotonic()
        else:
            self._keep(store.last_seq if self._since == "now" else 0)
        if self._warning:
            self._tell(self._warning)
        self._thread = threading.Thread(target=self._run, name=f"bridge {self.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that the store has new events; cheap, from any thread."""
        self._woken.set()

    def status(self) -> BridgeStatus:
        """Where it stands."""
        told = self._counters
        behind = max(self._store.last_seq - self._position, 0) if self._thread else 0
        return BridgeStatus(
            self.shown, self._state, told.reason, told.sent, told.refused, told.lost, told.failures, behind
        )

    def finish(self, timeout: float = 5.0) -> None:
        """Begin to end, without waiting for it: what is in the store is delivered if the other side takes it now.

        Args:
            timeout: seconds after which it ends in any case.
        """
        if not self._closing.is_set():
            self._deadline = time.monotonic() + timeout
            self._closing.set()
            self._woken.set()

    def close(self, timeout: float = 5.0) -> None:
        """``finish``, and wait for the end; what is left is sent at the next start. Harmless when repeated."""
        self.finish(timeout)
        if self._thread is None:
            return
        self._thread.join(max(self._deadline - time.monotonic(), 0.0) + _GRACE)
        if self._thread.is_alive():
            self._stop.set()
            self._target.abort()
            self._thread.join(_ABORT)
        behind = self.status().behind
        if behind and self._state != "closed":
            self._tell(f"ends; {_events(behind)} still to come will be sent when it starts again.")
        self._state = "closed"

    @property
    def _cursor(self) -> str:
        return f"bridge/{self.name}"

    def _run(self) -> None:
        reader: StoreReader | None = None
        try:
            while not self._over():
                try:
                    reader = reader or StoreReader(self._store.path)
                    self._work(reader)
                except Failure as failure:
                    self._back_off(failure.reason, failure.after)
                except StoreError as error:
                    self._back_off(str(error))
                except Exception as error:  # a fault of ours must not end what is promised to go on for ever
                    _log.debug("bridge %s", self.shown, exc_info=True)
                    self._back_off(f"an internal error ({type(error).__name__})")
        finally:
            self._close_target()
            if reader is not None:
                reader.close()

    def _over(self) -> bool:
        if self._stop.is_set() or time.monotonic() >= self._deadline:
            return True
        return self._closing.is_set() and (self._state == "failing" or self._position >= self._store.last_seq)

    def _work(self, reader: StoreReader) -> None:
        """Deliver what there is, or wait for it."""
        if not self._opened:
            context = Context(reader, f"{self.name} {self._store.path}", self._stop)
            self._opened = True
            self._target.open(context)
        self._woken.clear()
        page = self._page(reader)
        if self._again is not None and not page.stored:  # deleted in the meantime, and with it perhaps what follows
            self._again = None
            page = self._page(reader)
        if page.stored and page.upto >= page.last and len(page.stored) < self._target.batch and self._target.gather:
            self._closing.wait(self._target.gather)
            page = self._page(reader)
        self._count_lost(page)
        wanted = [event for event in page.stored if self._target.wants(event)]
        self._again = page.upto if wanted else None
        if wanted and self._deliver(wanted):
            self._succeeded()
        self._again = None
        if page.upto > self._position:
            self._position = page.upto
            if time.monotonic() - self._kept_at > _KEEP:
                self._keep(page.upto)
        if page.upto >= page.last and not self._closing.is_set():
            if self._target.tick():
                self._succeeded()
            self._woken.wait(_POLL)

    def _page(self, reader: StoreReader) -> Page:
        target = self._target
        return reader.page(
            self._position, until=self._again, kinds=target.kinds, streams=target.streams, limit=target.batch
        )

    def _deliver(self, events: Sequence[Stored]) -> bool:
        """Send until all are acknowledged or left out; whether any was acknowledged.

        Raises:
            Unreachable: it has to be tried again later, from the place that was kept.
        """
        if self._refusals < self._target.tries:
            try:
                self._send(events)
            except Refused as refusal:
                self._refusals += 1
                raise Unreachable(refusal.reason) from None
            accepted = True
        else:  # what is wrong may be one of them
            accepted = any([self._sent_or_left_out(event) for event in events])
        self._refusals = 0
        return accepted

    def _sent_or_left_out(self, event: Stored) -> bool:
        try:
            self._send([event])
        except Refused as refusal:
            self._counters.refused += 1
            if refusal.reason != self._told_refusal:
                self._told_refusal = refusal.reason
                self._tell(
                    f"leaves out event {event.header.seq} ({event.stream}, {event.kind}) and others like it: "
                    f"{refusal.reason}; they stay in the store."
                )
            self._keep(event.seq)
            return False
        return True

    def _send(self, events: Sequence[Stored]) -> None:
        try:
            self._target.send(events)
        except Failure as failure:
            if failure.done:
                self._acknowledged(events[: failure.done])
            raise
        self._acknowledged(events)

    def _acknowledged(self, events: Sequence[Stored]) -> None:
        self._counters.sent += len(events)
        self._keep(events[-1].seq)

    def _keep(self, position: int) -> None:
        # One more than the number: 0 is what the store says of a name that it does not know.
        self._position = position
        self._kept_at = time.monotonic()
        self._store.set_cursor(self._cursor, position + 1)

    def _count_lost(self, page: Page) -> None:
        first = page.stored[0].seq if page.stored else page.upto + 1
        # Asked after the page was read: what was deleted before that is below it now.
        lost = min(first, self._store.oldest_seq) - 1 - self._position
        if lost > 0:
            self._counters.lost += lost
            self._position += lost
            self._tell(f"lost {_events(lost)} at most: the store deleted them, by its caps, before they could be sent.")

    def _succeeded(self) -> None:
        if self._state == "failing":
            self._tell(f"delivers again after {self._backoff.failures} attempts.")
        elif self._state == "starting":
            self._tell("connected.")
        self._state, self._counters.reason = "delivering", ""
        self._backoff.reset()

    def _back_off(self, reason: str, after: float = 0.0) -> None:
        self._close_target()
        self._counters.failures += 1
        wait = max(self._backoff.failed(), after)
        if self._stop.is_set():  # the failure is our own: `abort`
            return
        if self._state != "failing" or reason != self._counters.reason:
            self._tell(f"{reason}; events wait in the store, it tries again.")
        self._state, self._counters.reason = "failing", reason
        self._closing.wait(wait)

    def _close_target(self) -> None:
        if self._opened:
            self._opened = False
            self._target.close()

    def _tell(self, line: str) -> None:
        with suppress(Exception):  # nobody to tell it to, as where standard error is closed, ends no bridge
            self._notice(f"bridge {self.shown}: {line}")


def close_bridges(bridges: Sequence[Bridge], timeout: float = 5.0) -> None:
    """Close all at the same time; see ``Bridge.close``. The store must still be open."""
    for bridge in bridges:
        bridge.finish(timeout)
    for bridge in bridges:
        bridge.close()


def check_distinct(bridges: Sequence[Bridge]) -> None:
    """Refuse two bridges that would share a place in the store.

    Raises:
        BridgeError: there are such.
    """
    seen: set[str] = set()
    for bridge in bridges:
        if bridge.name in seen:
            raise BridgeError(f"the bridge {bridge.shown} is given twice; leave one out, or give them names (?name=).")
        seen.add(bridge.name)


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count:,} events"
