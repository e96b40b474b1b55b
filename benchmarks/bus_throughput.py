"""How many events a second does the bus commit, index and deliver, how late, and what is that to raw pyzmq?

Raw is a PUB socket that sends the same bytes, in three frames as the bus does (`raw`) or in one (`raw, one frame`), to
the same subscribers, without any loss (no high-water mark); the bus stores and full-text indexes every event before it
sends it. Latency is measured apart, at a pace that leaves the machine idle.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import zmq

from benchmarks.bus_load import event, free_address, percentile, subscribers
from benchmarks.common import publish, spread, table
from onlooker.pipeline.bus.protocol import Header, topic
from onlooker.pipeline.bus.record import Record
from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.store import EventStore

COUNTS = {1: 40_000, 10: 10_000, 50: 3_000}
PACED, PACE = 200, 50.0  # events, and how many of them a second
GROUP = 64
_TOPIC = topic("cam1", "caption")
_HEADER = Header("01M82YKZ6SHM16QP93RKC617FS", 123_456, 123_452, "01M82YKZ6SHM16QP93RKC617FS", 1795395551.04).to_bytes()


class Sender(Protocol):
    """What publishes."""

    address: str

    def send(self, records: Sequence[Record]) -> None: ...

    def finish(self) -> None: ...


class Raw:
    def __init__(self, *, frames: int) -> None:
        self.address, self._frames = free_address(), frames
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.sndhwm = 0
        self._socket.bind(self.address)

    def send(self, records: Sequence[Record]) -> None:
        for record in records:
            if self._frames == 1:
                self._socket.send(_TOPIC + _HEADER + record.body)
            else:
                self._socket.send_multipart((_TOPIC, _HEADER, record.body))

    def finish(self) -> None:
        return

    def close(self) -> None:
        self._context.destroy(linger=0)


class Bus:
    def __init__(self, store: Path) -> None:
        self.address = free_address()
        self._server = BusServer(self.address, EventStore(store), high_water=0)
        self._server.start()
        self.close = self._server.close

    def send(self, records: Sequence[Record]) -> None:
        self._server.put(records)

    def finish(self) -> None:
        self._server.flush()


@contextmanager
def sender(kind: str) -> Iterator[Raw | Bus]:
    with tempfile.TemporaryDirectory() as folder:
        made = Bus(Path(folder) / "s.db") if kind == "bus" else Raw(frames=1 if "one" in kind else 3)
        try:
            yield made
        finally:
            made.close()


class Found(NamedTuple):
    """What one run has shown."""

    sent: float
    """Events a second."""
    received: float
    """Events a second, by the slowest subscriber."""
    work: float
    """CPU time of the publishing process for one event, microseconds."""
    late: list[float]
    """From before the call to arrival, ms."""


def measure(kind: str, number: int, count: int) -> Found:
    """Publish as fast as it goes, then at a pace."""
    burst = [event(n, "rate") for n in range(count)]
    paced = [event(n, "pace") for n in range(PACED)]
    sync = [event(0, "sync")]
    with sender(kind) as out, subscribers(number, out.address, count, PACED, lambda: out.send(sync)) as readers:
        begin, spent = time.time(), time.process_time()
        for first in range(0, count, GROUP):
            out.send(burst[first : first + GROUP])
        out.finish()
        sent = time.time()
        work = 1e6 * (time.process_time() - spent) / count
        received = max(float(reader.line()) for reader in readers)
        at = []
        for record in paced:
            time.sleep(1 / PACE)
            at.append(time.time())
            out.send([record])
        late = [1e3 * (time_ - at[n]) for reader in readers for n, time_ in reader.times().items()]
    return Found(count / (sent - begin), count / (received - begin), work, late)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subscribers", type=int, nargs="*", default=list(COUNTS))
    parser.add_argument("--out")
    args = parser.parse_args()
    kinds = ("raw", "raw, one frame", "bus")
    rows = []
    for number in args.subscribers:
        found: dict[str, list[Found]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):  # in turn, so that what else the machine does falls on all of them
            for kind in kinds:
                found[kind].append(measure(kind, number, COUNTS[number]))
        base = statistics.median(percentile(one.late, 0.5) for one in found["raw"])
        for kind in kinds:
            ratios = [
                [ours.received / theirs.received for ours, theirs in zip(found[kind], found[raw], strict=True)]
                for raw in kinds[:2]
            ]
            middle = [percentile(one.late, 0.5) for one in found[kind]]
            rows.append(
                [
                    number,
                    kind,
                    spread([one.sent for one in found[kind]]),
                    spread([one.received for one in found[kind]]),
                    *(spread(one) for one in ratios),
                    spread([one.work for one in found[kind]]),
                    spread(middle),
                    spread([percentile(one.late, 0.99) for one in found[kind]]),
                    statistics.median(middle) - base,
                ]
            )
    head = [
        "subscribers",
        "",
        "sent, events/s",
        "received by all, events/s",
        "to raw",
        "to one frame",
        "CPU, µs an event",
    ]
    head += ["p50, ms", "p99, ms", "p50 above raw, ms"]
    size = len(event(1000, "rate").body)
    note = (
        f"Events of {size} bytes; `sent` by the bus: committed, indexed and sent. Median (min-max) of {args.rounds} "
        f"rounds, ratios within a round. Latency from before the call to arrival, at {PACE:g} events/s. Publisher and "
        "subscribers share the machine; CPU is that of the publishing process, with its threads, in the burst."
    )
    publish("The event bus next to raw pyzmq", f"{table(head, rows)}\n\n{note}", args.out)


if __name__ == "__main__":
    main()
