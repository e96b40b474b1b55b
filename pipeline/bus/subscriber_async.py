"""``onlooker.subscribe_async``: the same for asyncio. No thread: the sockets' file descriptors wake the loop."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from onlooker.operators.events import Event

from .receiver import Receiver

__all__ = ["AsyncSubscription", "subscribe_async"]

_TURN = 64
"""Events after which other tasks have their turn, however many more are at hand."""


class AsyncSubscription(Receiver):
    """An endless asynchronous iterator over events; arguments and errors as in `Receiver`::

        async with onlooker.subscribe_async("tcp://127.0.0.1:5571") as events:
            async for event in events:
                print(event.data)

    For one task at a time; a wait may be cancelled without losing an event.
    """

    _given = 0

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event."""
        event = await self.get()
        assert event is not None  # without a time it waits for ever
        return event

    async def get(self, wait: float | None = None) -> Event | None:
        """The next event, or None if none comes within ``wait`` seconds; errors as in `Subscription.get`."""
        self._enter()
        until = None if wait is None else time.monotonic() + wait
        self._given += 1
        if self._given % _TURN == 0:
            await asyncio.sleep(0)
        while (event := self._take()) is None:
            seconds = self._pause(until)
            if seconds is None:
                return None
            await self._poll(seconds)
        return event

    async def _poll(self, seconds: float) -> None:
        """Wait until a socket may have something.

        libzmq's descriptors become readable when something comes to a socket that had been read until it was empty, as
        `Receiver._pump` does. They stay readable until it is read again, so nobody may watch them meanwhile.
        """
        if seconds == 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        descriptors = [socket.fileno() for line in self._lines for socket in (line.socket, line.monitor)]
        for descriptor in descriptors:
            loop.add_reader(descriptor, woken.set)
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            return
        finally:
            for descriptor in descriptors:
                loop.remove_reader(descriptor)

    async def close(self) -> None:
        """Leave the bus; ``position`` stays."""
        self._shut()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bus."""
        self._shut()


subscribe_async = AsyncSubscription
