"""Sinks that publish: on a bus of their own, or through one that runs already."""

from __future__ import annotations

import time
from collections.abc import Callable

from onlooker.operators.contract import End, SourceInfo
from onlooker.operators.events import Event

from ..bus.handover import Handover
from ..bus.protocol import new_ulid
from ..bus.record import Record
from ..bus.server import BusServer
from ..errors import OutputError
from .base import Sink

__all__ = ["BusSink", "HandoverSink"]

_PATIENCE = 5.0
"""Seconds for which a live run waits for a bus that does not take its events; a file waits for as long as it takes."""
_LINGER = 1.0
"""Seconds for which the bus of a run answers after the last event, for those who still have to catch up."""
_GOODBYE = 30.0
"""Seconds for which the end of a run waits for another process to take the last events."""
_LOOK_EVERY = 0.5
"""Seconds after which a wait without end looks whether there is an end after all."""


class _Publishing(Sink):
    """What both have in common: patience, and an account of what was lost when it was over."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._of_files = False
        self._streams: set[str] = set()
        self._until: float | None = None
        """When waiting ends, on the monotonic clock, once the user wants the run to end."""
        self.lost = 0
        """Events that nobody took in time."""

    def start(self, info: SourceInfo, uri: str) -> None:
        """See ``Sink.start``."""
        self._streams.add(info.stream)
        self._of_files = not info.live  # a run reads files or watches live sources, never both
        self._tell_streams()

    def event(self, event: Event) -> None:
        """Publish; waits where nobody takes it. See ``Sink.event``."""
        if not self._offer(event):
            if not self.lost:
                self._notice("the bus takes no events; those that have to wait too long are not published.")
            self.lost += 1

    def hurry(self) -> None:
        """See ``Sink.hurry``."""
        self._until = time.monotonic() + _PATIENCE

    def finish(self, stream: str, end: End) -> None:
        """See ``Sink.finish``."""
        self._streams.discard(stream)
        self._tell_streams()

    def _offer(self, event: Event) -> bool:
        """Whether the event was taken: a live stream does not wait for long, a file until the user has had enough."""
        while self._of_files and self._until is None:
            if self._put(event, _LOOK_EVERY):
                return True
        return self._put(event, _PATIENCE if self._until is None else max(0.0, self._until - time.monotonic()))

    def _check_lost(self) -> None:
        """Fail if not all was published, so that the run does not end as if it had been.

        Raises:
            OutputError: events are missing.
        """
        if self.lost:
            raise OutputError(f"the bus took too long: {self.lost} events were not published.")

    def _put(self, event: Event, timeout: float) -> bool:
        raise NotImplementedError

    def _tell_streams(self) -> None:
        """The set of streams has changed."""


class BusSink(_Publishing):
    """Publishes on a bus of its own, and so with a store of its own."""

    def __init__(self, server: BusServer, notice: Callable[[str], None]) -> None:
        """Serve as long as the run goes on.

        Args:
            server: not started yet.
            notice: called with one line where the user should know something.
        """
        super().__init__(notice)
        self._server, self._run = server, new_ulid()
        self._told = 0
        """Of the lost events, those that an alarm has told of."""

    def open(self) -> None:
        """Start to serve.

        Raises:
            StoreError: the store cannot be used.
            BusError: the address cannot be served.
        """
        self._server.start()

    def _put(self, event: Event, timeout: float) -> bool:
        return self._put_all([Record.from_event(event, self._run)], timeout)

    def _put_all(self, records: list[Record], timeout: float) -> bool:
        """Publish; where events before these were lost, an alarm stands in their place."""
        if missing := self.lost - self._told:
            text = f"{missing} events had to wait too long and are lost."
            records = [self._server.alarms.tell("events_lost", text), *records]
        if not records:
            return True
        taken = bool(self._server.put(records, timeout))
        if taken:
            self._told = self.lost
        return taken

    def close(self) -> None:
        """Publish what waits, and stop to serve. See ``Sink.close``.

        Raises:
            OutputError: not all events were published.
        """
        try:
            self._put_all([], _PATIENCE)
        finally:
            self._server.close(linger=_LINGER)
        self._check_lost()


class HandoverSink(_Publishing):
    """Hands events over to an ``onlooker bus`` that runs already."""

    def __init__(self, handover: Handover, notice: Callable[[str], None]) -> None:
        """Connect when the run begins.

        Args:
            handover: not open yet.
            notice: called with one line where the user should know something.
        """
        super().__init__(notice)
        self._handover = handover

    def open(self) -> None:
        """Connect.

        Raises:
            BusError: no bus answers, or it does not take events from here.
        """
        self._handover.open()

    def _put(self, event: Event, timeout: float) -> bool:
        return self._handover.put(event.to_json().encode(), timeout)

    def _tell_streams(self) -> None:
        self._handover.set_streams(frozenset(self._streams))

    def close(self) -> None:
        """Wait until the bus has all events. See ``Sink.close``.

        Raises:
            OutputError: it did not take all of them.
        """
        missing = self._handover.close(_GOODBYE if self._until is None else _PATIENCE)
        if missing:
            raise OutputError(f"the bus at {self._handover.address} has not taken the last {missing} events.")
        self._check_lost()
