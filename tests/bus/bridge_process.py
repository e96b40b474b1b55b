"""A bus with one bridge in a process of its own, to be killed: appends events until there are enough, delivers them.

    BRIDGE=ADDRESS python -m tests.bus.bridge_process STORE TOTAL [hasty]

``hasty`` makes a crippled bridge that moves its place before the other side has acknowledged.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from onlooker.pipeline.bus.bridges import Backoff, Bridge, make_bridges
from onlooker.pipeline.bus.record import Stored
from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.secrets import Secrets

from .bridge_events import caption


class HastyBridge(Bridge):
    def _deliver(self, events: Sequence[Stored]) -> bool:
        self._keep(events[-1].header.seq or 0)
        return super()._deliver(events)


def main(path: str, total: int, hasty: bool) -> None:
    store = EventStore(path)
    store.open()
    (bridge,) = make_bridges([os.environ["BRIDGE"]], Secrets(), backoff=Backoff(0.05, 0.2))
    if hasty:
        bridge.__class__ = HastyBridge
    bridge.start(store, lambda line: print(line, file=sys.stderr, flush=True))
    while store.last_seq < total:
        number = store.last_seq
        store.append([caption(f"cam{number % 3}", number)])
        bridge.wake()
        time.sleep(0.002)
    while bridge.status().behind:
        time.sleep(0.02)
    bridge.close()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["hasty"])
