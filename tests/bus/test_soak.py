"""Subscribers and a bus that are killed over and over: what the subscribers have is what the store has."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .buses import free_address
from .soaking import Job, Line, Listener, LogFile, stored_lines
from .stores import check_whole

PATIENCE = 300.0


class Soak:
    """One bus, a subscriber of everything, one of a single stream, and a listener that has no memory."""

    def __init__(self, folder: Path, pace: int, closing: ExitStack) -> None:
        self.store = folder / "events.db"
        self.everything, self.one_stream = LogFile(folder / "all.log"), LogFile(folder / "cam1.log")
        address = free_address()
        self.bus = Job("publish", address, self.store, pace)
        closing.callback(lambda: self.bus.kill())
        self.begun_at = [int(self.bus.hear())]
        self.bound = 0
        self.listener = Listener(address)
        closing.callback(self.listener.close)
        self.subscriber = Job("subscribe", address, self.everything.path)
        closing.callback(self.subscriber.kill)
        self.other = Job("subscribe", address, self.one_stream.path, "cam1")
        closing.callback(self.other.kill)

    def publish(self, until: int) -> None:
        """Have the bus go on to this number; does not wait for it."""
        self.bound = until
        self.bus.tell(until)

    def kill_subscriber(self, *, other: bool) -> None:
        self.subscriber.kill()
        self.listener.stop()
        if other:
            self.other.kill()
            self.other.again()
        self.subscriber.again()
        self.listener.again()

    def kill_bus(self) -> None:
        self.bus.kill()
        self.bus.again()
        self.begun_at.append(int(self.bus.hear()))
        self.bus.tell(self.bound)

    def settled(self) -> None:
        """Wait until the bus is there and the subscribers have as many events as there are."""
        while int(self.bus.hear()) < self.bound:
            pass
        wait_for(lambda: self.everything.grown() >= self.bound)
        wait_for(lambda: self.one_stream.grown() >= len(range(1, self.bound, 3)))
        time.sleep(1.5)  # what comes twice may come late


@pytest.fixture
def soak(tmp_path: Path, pace: int) -> Iterator[Soak]:
    with ExitStack() as closing:
        yield Soak(tmp_path, pace, closing)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.002)


def differences(log: list[Line], store: list[Line]) -> list[str]:
    """What is wrong with a log: missing, twice, out of order, or other than what is stored."""
    found = []
    numbers = [line.seq for line in log]
    if missing := {line.seq for line in store} - set(numbers):
        found.append(f"{len(missing)} are missing")
    if twice := len(numbers) - len(set(numbers)):
        found.append(f"{twice} came twice")
    if numbers != sorted(numbers):
        found.append("the order is another one")
    if other := set(log) - set(store):
        found.append(f"{len(other)} are other events")
    return found


def run(soak: Soak, total: int, pace: int, subscriber_kills: int, bus_kills: int) -> None:
    """Publish in as many parts as there are kills.

    The bus dies before it can have published what it was told to; the subscriber at a random place of its log, while
    the next part is published.
    """
    chosen = random.Random(total)
    bus_parts = set(chosen.sample(range(subscriber_kills), bus_kills))
    ends = [total * part // subscriber_kills for part in range(subscriber_kills + 1)]
    for part in range(subscriber_kills):
        soak.publish(ends[min(part + 2, subscriber_kills)])
        if part in bus_parts:
            time.sleep(chosen.uniform(0.0, 0.8) * (ends[part + 1] - ends[part]) / pace)
            soak.kill_bus()
        moment = chosen.randrange(ends[part], ends[part + 1])
        wait_for(lambda moment=moment: soak.everything.grown() > moment)
        soak.kill_subscriber(other=part % 5 == 0)
    soak.settled()


@pytest.mark.parametrize(
    ("total", "pace", "subscriber_kills", "bus_kills"),
    [(3_000, 600, 5, 2), pytest.param(100_000, 2_500, 50, 10, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_killed_over_and_over_nothing_is_missed(
    soak: Soak, total: int, pace: int, subscriber_kills: int, bus_kills: int
) -> None:
    run(soak, total, pace, subscriber_kills, bus_kills)
    stored = stored_lines(soak.store)
    assert [line.seq for line in stored] == list(range(1, total + 1))
    assert len({line.id for line in stored}) == total
    assert len({line.epoch for line in stored}) > bus_kills / 2 and len(soak.begun_at) == bus_kills + 1
    assert any(begin * subscriber_kills % total for begin in soak.begun_at), "no kill came in the middle of a part"
    assert differences(soak.everything.lines(), stored) == []
    assert differences(soak.one_stream.lines(), stored_lines(soak.store, "cam1")) == []
    # The twin that neither fills gaps nor resumes saw the same kills.
    assert any("missing" in found for found in differences(soak.listener.heard, stored))
    check_whole(soak.store)


def test_the_check_sees_what_is_wrong() -> None:
    lines = [Line(seq, "E", f"cam1/0/caption/{seq}/0") for seq in range(1, 6)]
    assert differences(lines, lines) == []
    assert differences(lines[:2] + lines[3:], lines) == ["1 are missing"]
    assert differences([*lines, lines[-1]], lines) == ["1 came twice"]
    assert differences([lines[1], lines[0], *lines[2:]], lines) == ["the order is another one"]
    assert differences([*lines[:-1], lines[-1]._replace(id="x")], lines) == ["1 are other events"]
