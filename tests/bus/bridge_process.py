"""A bus with one bridge in a process of its own, to be killed: appends events until there are enough, delivers them.

    BRIDGE=ADDRESS python -m tests.bus.bridge_process STORE TOTAL [hasty]

With 0 for TOTAL it never ends by itself. ``hasty`` makes a crippled bridge that moves its place before the other side
has acknowledged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from onlooker.operators.backoff import Backoff
from onlooker.pipeline.bus.bridges import Bridge, make_bridges
from onlooker.pipeline.bus.record import Stored
from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.bus.store_read import StoreReader
from onlooker.pipeline.secrets import Secrets

from .bridge_events import caption

STREAMS = 3


def endless(store: Path, address: str, *, hasty: bool = False) -> subprocess.Popen[bytes]:
    """Start a bus that goes on until it is killed."""
    return _start(store, address, 0, hasty)


def complete(store: Path, address: str, *, hasty: bool = False) -> dict[str, list[int]]:
    """Run a bus that adds a few events and delivers everything; returns all numbers of events by stream."""
    reader = StoreReader(store)
    total = reader.bounds()[1] + 20
    reader.close()
    assert _start(store, address, total, hasty).wait(180) == 0
    return {f"cam{k}": list(range(k, total, STREAMS)) for k in range(STREAMS)}


def _start(store: Path, address: str, total: int, hasty: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.bus.bridge_process", str(store), str(total)]
    return subprocess.Popen(
        command + ["hasty"] * hasty, env=os.environ | {"BRIDGE": address}, stderr=subprocess.DEVNULL
    )


class HastyBridge(Bridge):
    def _deliver(self, events: Sequence[Stored]) -> bool:
        self._keep(events[-1].header.seq or 0)
        return super()._deliver(events)


def main(path: str, total: int, hasty: bool) -> None:
    store = EventStore(path)
    store.open()
    (bridge,) = make_bridges([os.environ["BRIDGE"]], Secrets(), backoff=lambda: Backoff(0.05, 0.2))
    if hasty:
        bridge.__class__ = HastyBridge
    bridge.start(store, lambda line: print(line, file=sys.stderr, flush=True))
    while not total or store.last_seq < total:
        number = store.last_seq
        store.append([caption(f"cam{number % STREAMS}", number)])
        bridge.wake()
        time.sleep(0.01)
    while bridge.status().behind:
        time.sleep(0.02)
    bridge.close()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["hasty"])
