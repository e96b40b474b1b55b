"""Buses for the tests of subscribers: in this process, and in one of its own that can be killed."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onlooker.operators.events import Event, Phase, make_event
from onlooker.pipeline.bus.keys import ServerKeys
from onlooker.pipeline.bus.record import Record
from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.store import EventStore

PATIENCE = 60.0


def caption(number: int, stream: str = "cam1", text: str | None = None, phase: Phase = "end", rev: int = 0) -> Event:
    return make_event(
        "caption",
        stream=stream,
        epoch=0,
        event_no=number,
        rev=rev,
        phase=phase,
        t_start=float(number),
        t_end=number + 1.0 if phase == "end" else None,
        t_seen=number + 1.0,
        text=f"number {number}" if text is None else text,
    )


def records(events: Sequence[Event], run: str = "run") -> list[Record]:
    return [Record.from_event(event, run) for event in events]


def free_address() -> str:
    """A TCP address whose three ports are free at this moment."""
    while True:
        with contextlib.ExitStack() as made:
            first = made.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for offset in (1, 2):
                    made.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except (OSError, OverflowError):
                continue
            return f"tcp://127.0.0.1:{port}"


@contextlib.contextmanager
def place() -> Iterator[str]:
    """An ipc address in a folder of its own, with a short path."""
    with tempfile.TemporaryDirectory(prefix="bus") as folder:
        yield f"ipc://{folder}/b"


@contextlib.contextmanager
def bus(address: str, store: Path, keys: ServerKeys | None = None, **options: Any) -> Iterator[BusServer]:
    server = BusServer(address, EventStore(store), keys=keys, notice=lambda line: None, **options)
    with server:
        yield server


def put(server: BusServer, events: Sequence[Event], run: str = "run") -> None:
    server.put(records(events, run))
    assert server.flush(PATIENCE)


class BusProcess:
    """A bus that publishes ``number 0``, ``number 1`` ... in a process of its own, on command."""

    def __init__(self, address: str, store: Path) -> None:
        command = [sys.executable, "-m", "tests.bus.buses", address, str(store)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == "ready"

    def publish(self, first: int, count: int, stream: str = "cam1") -> None:
        """Returns when they are committed and sent."""
        self.publish_on(first, count, stream)
        assert self._read() == "done"

    def publish_on(self, first: int, count: int, stream: str = "cam1") -> None:
        """Begin to publish; the bus may be killed meanwhile."""
        assert self._process.stdin is not None
        print(first, count, stream, file=self._process.stdin, flush=True)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> BusProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def _serve(address: str, store: str) -> None:
    with bus(address, Path(store)) as server:
        print("ready", flush=True)
        for line in sys.stdin:
            first, count, stream = line.split()
            for number in range(int(first), int(first) + int(count)):
                server.put(records([caption(number, stream)]))
            server.flush()
            print("done", flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
