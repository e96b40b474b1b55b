"""Events and stores for the tests of bridges."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from onlooker.operators.backoff import Backoff
from onlooker.operators.events import make_event
from onlooker.pipeline.bus.bridges import Bridge, make_bridges
from onlooker.pipeline.bus.record import Record
from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.secrets import Secrets

QUICK = partial(Backoff, 0.02, 0.2)


def caption(stream: str, number: int, *, phase: Any = "end", run: str = "run1", text: str | None = None) -> Record:
    return Record.from_event(
        make_event(
            "caption",
            stream=stream,
            epoch=0,
            event_no=number,
            rev=0,
            phase=phase,
            t_start=float(number),
            t_end=number + 1.0,
            t_seen=number + 1.0,
            score=0.5,
            text=text or f"caption {number}",
        ),
        run,
    )


def query(stream: str, number: int, text: str, phase: Any, *, run: str = "run1") -> Record:
    event = make_event(
        "query",
        stream=stream,
        epoch=0,
        event_no=number,
        rev=1 if phase == "end" else 0,
        phase=phase,
        t_start=float(number),
        t_end=number + 1.0 if phase == "end" else None,
        t_seen=number + 1.0,
        query=text,
    )
    return Record.from_event(event, run)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for a condition; machines may be slow."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the condition was not met in time"
        time.sleep(0.01)


class Bus:
    """A store and one bridge on it, in this process."""

    def __init__(self, path: Path, spec: Any, **store: Any) -> None:
        self.store = EventStore(path, **store)
        self.store.open()
        self.notices: list[str] = []
        (self.bridge,) = make_bridges([spec], Secrets(), backoff=QUICK)

    def start(self) -> Bridge:
        self.bridge.start(self.store, self.notices.append)
        return self.bridge

    def append(self, *records: Record) -> None:
        self.store.append(records)
        self.bridge.wake()

    def settle(self) -> None:
        """Wait until everything is delivered."""
        until(lambda: not self.bridge.status().behind)


@contextmanager
def bus(path: Path, spec: Any, **store: Any) -> Iterator[Bus]:
    one = Bus(path, spec, **store)
    try:
        one.start()
        yield one
    finally:
        one.bridge.close(1.0)
        one.store.close()
