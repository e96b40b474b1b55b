"""Do subscribers that are stopped cost the others time, or the bus memory?

The same run twice: 50 subscribers that read, and 50 of which 5 are stopped (SIGSTOP) for all of it.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.bus_load import event, free_address, percentile, subscribers
from benchmarks.common import publish, table
from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.store import EventStore


def measure(number: int, stalled: int, seconds: float, pace: float) -> Sequence[object]:
    """One run; a row of the table."""
    count = round(seconds * pace)
    sync = [event(0, "sync")]
    process, memory, at = psutil.Process(), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        address = free_address()
        server = BusServer(address, EventStore(Path(folder) / "s.db"))
        with (
            server,
            subscribers(number, address, 1, count, lambda: server.put(sync), high_water=1000) as readers,
        ):
            for reader in readers[:stalled]:
                os.kill(reader.process.pid, signal.SIGSTOP)
            server.put([event(0, "rate")])
            for reader in readers[stalled:]:
                reader.line()
            begin = time.monotonic()
            for n in range(count):
                time.sleep(max(begin + n / pace - time.monotonic(), 0))
                at.append(time.time())
                server.put([event(n, "pace")])
                if n % round(pace) == 0:
                    memory.append(process.memory_info().rss / 2**20)
            closed = number - server.subscribers
            late = [1e3 * (time_ - at[n]) for reader in readers[stalled:] for n, time_ in reader.times().items()]
    late_half = memory[len(memory) // 2 :]
    return [
        stalled,
        *(percentile(late, part) for part in (0.5, 0.95, 0.99)),
        memory[0],
        late_half[0],
        memory[-1],
        closed,
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=50)
    parser.add_argument("--stalled", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pace", type=float, default=40.0, help="events a second")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out")
    args = parser.parse_args()
    rows: list[Sequence[object]] = []
    for _ in range(args.rounds):
        for stalled in (0, args.stalled):
            rows.append(measure(args.subscribers, stalled, args.seconds, args.pace))
    ratios = [float(str(b[2])) / float(str(a[2])) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    head = ["stalled", "p50, ms", "p95, ms", "p99, ms", "RSS at the start, MB", "in the middle", "at the end", "closed"]
    note = (
        f"{args.subscribers} subscribers, {args.pace:g} events/s for {args.seconds:g} s; latency of those that read, "
        f"from before the call to arrival. p95 with stalled ones, to that without, by round: "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}. `closed`: connections that the bus has given up by the end."
    )
    publish("Stalled subscribers of the event bus", f"{table(head, rows)}\n\n{note}", args.out)


if __name__ == "__main__":
    main()
