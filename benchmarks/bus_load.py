"""What the benchmarks of the bus share: its events, and subscribers in processes of their own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from onlooker.operators.events import make_event
from onlooker.pipeline.bus.record import Record

__all__ = ["Subscriber", "event", "free_address", "percentile", "subscribers"]

# Reads as fast as it can and does nothing else: what is measured is the other end.
_SUBSCRIBER = """
import json, sys, time, zmq
address, count, paced, high_water = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
socket = zmq.Context().socket(zmq.SUB)
socket.rcvhwm = high_water
socket.subscribe(b"v1/")
socket.connect(address)
def bodies():
    while True:
        frames = socket.recv_multipart()
        if not frames[0].startswith(b"v1//"):
            yield frames[-1]
source = bodies()
next(source)
print("synced", flush=True)
seen = 0
for body in source:
    if b'"text":"sync' not in body:
        seen += 1
        if seen >= count:
            break
print(time.time(), flush=True)
times = {}
while len(times) < paced:
    body = next(source)
    times[body[body.index(b'"text":"pace') + 13 :].split(b" ", 1)[0].decode()] = time.time()
print(json.dumps(times), flush=True)
"""


class Subscriber:
    """A process that reads ``count`` events as they come and then ``paced`` more, whose times of arrival it tells."""

    def __init__(self, address: str, count: int, paced: int, high_water: int) -> None:
        command = [sys.executable, "-c", _SUBSCRIBER, address, str(count), str(paced), str(high_water)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def times(self) -> dict[int, float]:
        """Number of a paced event -> Unix time at which it came."""
        return {int(number): at for number, at in json.loads(self.line()).items()}


@contextmanager
def subscribers(
    number: int, address: str, count: int, paced: int, sync: Callable[[], None], high_water: int = 0
) -> Iterator[list[Subscriber]]:
    """Start subscribers and wait until all of them get what is published; ``sync`` publishes something."""
    with ExitStack() as cleanup:
        found = []
        for _ in range(number):
            found.append(Subscriber(address, count, paced, high_water))
            cleanup.callback(found[-1].process.wait)
            cleanup.callback(found[-1].process.kill)
        import threading

        ready = threading.Event()

        def wait() -> None:
            for one in found:
                assert one.line() == "synced"
            ready.set()

        threading.Thread(target=wait, daemon=True).start()
        while not ready.wait(0.05):
            sync()
        yield found


def event(number: int, words: str) -> Record:
    """A caption of the size that the embedded captioner writes, with clocks and speed."""
    made = make_event(
        "caption",
        stream=f"cam{number % 4}",
        epoch=1795395551000,
        event_no=number,
        rev=0,
        phase="end",
        t_start=5.0 * number,
        t_end=5.0 * number + 5.0,
        t_seen=5.0 * number + 5.0,
        score=-0.8123,
        text=f"{words} {number} a person in a red coat walks along a street beside a parked truck",
        side={
            "wall": "2026-11-23T00:00:00.000000Z",
            "time_source": "host",
            "clock_err_ms": 120.0,
            "latency_ms": {"decode": 4.21, "clip_tower": 35.2, "memory": 1.03, "caption": 180.4},
            "age_ms": 241.7,
        },
    )
    return Record.from_event(made, "01M82YKZ6SHM16QP93RKC617FS")


def free_address() -> str:
    """A TCP address whose port, and the next one, are free at this moment."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return f"tcp://127.0.0.1:{port}"


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which this part of them lies."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]
