from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from onlooker.operators.events import Event
from onlooker.pipeline.bus.dial import BusUnreachable
from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.subscriber_async import AsyncSubscription

from .buses import PATIENCE, bus, caption, free_address, place, put


async def take(events: AsyncSubscription, count: int) -> list[Event]:
    return [event for _ in range(count) if (event := await events.get(PATIENCE)) is not None]


def test_several_in_one_loop_get_all_and_leave_nothing(tmp_path: Path) -> None:
    async def watch(address: str, count: int) -> list[Event]:
        async with AsyncSubscription(address, since="all") as events:
            return await take(events, count)

    async def both(address: str) -> list[list[Event]]:
        await watch(address, 1)
        before = psutil.Process().num_fds()
        found = await asyncio.gather(*(watch(address, 600) for _ in range(3)))
        while psutil.Process().num_fds() > before:
            await asyncio.sleep(0.02)
        return found

    given = [caption(number) for number in range(600)]
    with place() as address, bus(address, tmp_path / "store") as server:
        put(server, given)
        assert asyncio.run(both(address)) == [given] * 3


def test_waiting_costs_nothing(tmp_path: Path) -> None:
    """A descriptor that stays readable would turn the loop without end."""

    async def watch(address: str) -> int:
        async with AsyncSubscription(address) as events:
            while events.position is None:
                await events.get(0.05)
            wait, waits = events._poll, []

            async def counted(seconds: float) -> None:
                waits.append(seconds)
                await wait(seconds)

            events._poll = counted  # type: ignore[method-assign]
            assert await events.get(2) is None
            return len(waits)

    with place() as address, bus(address, tmp_path / "store"):
        assert asyncio.run(watch(address)) < 30  # one for each heartbeat, one every half second


def test_a_wait_that_is_cancelled_loses_nothing(tmp_path: Path) -> None:
    async def watch(address: str, server: BusServer) -> list[Event]:
        async with AsyncSubscription(address, since="all") as events:
            found: list[Event] = []
            for number in range(20):
                waiting = asyncio.create_task(events.get())
                await asyncio.sleep(0.01)
                waiting.cancel()
                (given,) = await asyncio.gather(waiting, return_exceptions=True)
                if isinstance(given, Event):
                    found.append(given)
                await asyncio.to_thread(put, server, [caption(number)])
            while len(found) < 20:
                found += await take(events, 1)
            return found

    with place() as address, bus(address, tmp_path / "store") as server:
        assert asyncio.run(watch(address, server)) == [caption(number) for number in range(20)]


def test_a_bus_that_is_not_there_is_an_error_after_the_timeout() -> None:
    async def watch() -> None:
        async with AsyncSubscription(free_address(), timeout=0.3) as events:
            await events.get()

    with pytest.raises(BusUnreachable):
        asyncio.run(watch())
