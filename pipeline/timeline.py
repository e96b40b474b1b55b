"""One line of time for a live stream, whose media time begins anew with every connection."""

from __future__ import annotations

import time

from onlooker.operators.contract import SourceInfo

from .runtime.batch import Batch

__all__ = ["Timeline"]


class Timeline:
    """Seconds since watching of one live stream began, by this host's monotonic clock.

    An epoch is placed where the first of its frames that left the graph had arrived, so a camera whose clock is wrong
    moves nothing. But it never begins before the end of the epoch before it: epochs follow one another without
    overlapping, and time never goes back. Within an epoch it runs as fast as the camera's clock.
    """

    def __init__(self) -> None:
        """Begin now; ``begin`` knows better."""
        self._began = time.monotonic()
        self._epoch: int | None = None
        self._reached = 0.0
        self.zero = 0.0
        """Where media time zero of the open epoch lies, seconds."""

    def begin(self, info: SourceInfo) -> None:
        """Watching began when the source was opened, which another process may have done a while ago."""
        ago = max(0.0, time.time() - info.epoch / 1000)
        self._began = max(self._began, time.monotonic() - ago)

    def now(self) -> float:
        """Seconds since watching began."""
        return max(0.0, time.monotonic() - self._began)

    def take(self, batch: Batch) -> bool:
        """Follow a batch that has left the last stage; says whether a new epoch begins with it."""
        begins = batch.wall is not None and batch.epoch != self._epoch
        if batch.wall is not None:
            if begins:
                arrived = self.now() if batch.arrival is None else batch.arrival - self._began
                self._epoch, self.zero = batch.epoch, max(self._reached, arrived - batch.wall.t)
            self._reached = max(self._reached, self.zero + batch.wall.t)
        if batch.end is not None and batch.epoch == self._epoch:
            self._reached = max(self._reached, self.zero + batch.end.t)
        return begins
