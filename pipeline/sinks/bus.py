"""Sinks that publish: on a bus of their own, or through one that runs already."""

from __future__ import annotations

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


class _Publishing(Sink):
    """What both have in common: patience, and an account of what was lost when it was over."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._live: set[str] = set()
        self._streams: set[str] = set()
        self.lost = 0
        """Events of live streams that nobody took in time."""

    def start(self, info: SourceInfo, uri: str) -> None:
        """See ``Sink.start``."""
        self._streams.add(info.stream)
        if info.live:
            self._live.add(info.stream)
        self._tell_streams()

    def event(self, event: Event) -> None:
        """Publish; waits where nobody takes it. See ``Sink.event``."""
        if not self._put(event, _PATIENCE if event.data.stream in self._live else None):
            if not self.lost:
                self._notice("the bus takes no events; those that have to wait too long are not published.")
            self.lost += 1

    def finish(self, stream: str, end: End) -> None:
        """See ``Sink.finish``."""
        self._streams.discard(stream)
        self._live.discard(stream)
        self._tell_streams()

    def _put(self, event: Event, timeout: float | None) -> bool:
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

    def open(self) -> None:
        """Start to serve.

        Raises:
            StoreError: the store cannot be used.
            BusError: the address cannot be served.
        """
        self._server.start()

    def _put(self, event: Event, timeout: float | None) -> bool:
        return bool(self._server.put([Record.from_event(event, self._run)], timeout))

    def close(self) -> None:
        """Publish what waits, and stop to serve. See ``Sink.close``."""
        if self.lost:
            alarm = self._server.alarms.tell("events_lost", f"{self.lost} events had to wait too long and are lost.")
            self._server.put([alarm], _PATIENCE)
        self._server.close(linger=_LINGER)


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

    def _put(self, event: Event, timeout: float | None) -> bool:
        return self._handover.put(event.to_json().encode(), timeout)

    def _tell_streams(self) -> None:
        self._handover.set_streams(frozenset(self._streams))

    def close(self) -> None:
        """Wait until the bus has all events. See ``Sink.close``.

        Raises:
            OutputError: it did not take the last ones.
        """
        missing = self._handover.close(_GOODBYE)
        if missing:
            raise OutputError(f"the bus at {self._handover.address} has not taken the last {missing} events.")
