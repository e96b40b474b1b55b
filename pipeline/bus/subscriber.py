"""``onlooker.subscribe``: the events of a bus, one after the other, none missed and none twice."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import zmq

from onlooker.operators.events import Event

from .receiver import Receiver

__all__ = ["Subscription", "subscribe"]


class Subscription(Receiver):
    """An endless iterator over events; arguments and errors as in `Receiver`.

    It connects again by itself when the bus or the network was away, and goes on where it was::

        with onlooker.subscribe("tcp://127.0.0.1:5571", phase="end", since="10m") as events:
            for event in events:
                print(event.data.stream, event.t_start, event.data)
                keep(events.position)
    """

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Event:
        """Wait for the next event."""
        event = self.get()
        assert event is not None  # without a time it waits for ever
        return event

    def get(self, wait: float | None = None) -> Event | None:
        """The next event, or None if none comes within ``wait`` seconds.

        Raises:
            BusUnreachable: the bus has been away for ``timeout`` seconds.
            KeyRefused: it does not let this key in.
            OnlookerError: it speaks another version, or is no bus.
        """
        self._enter()
        until = None if wait is None else time.monotonic() + wait
        while (event := self._take()) is None:
            seconds = self._pause(until)
            if seconds is None:
                return None
            self._poll(seconds)
        return event

    def _poll(self, seconds: float) -> None:
        poller = zmq.Poller()
        for line in self._lines:
            poller.register(line.socket, zmq.POLLIN)
            poller.register(line.monitor, zmq.POLLIN)
        poller.poll(round(seconds * 1000))

    def close(self) -> None:
        """Leave the bus; ``position`` stays."""
        self._shut()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bus."""
        self.close()


subscribe = Subscription
