"""Puts events of many nodes and streams into the one order of the log."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from onlooker.operators.events import Event
from onlooker.operators.packets import Events

from ..graph import Edge
from .batch import Batch

__all__ = ["EventMerger"]


class EventMerger:
    """Holds events back until no event that belongs before them can come any more.

    The order is (media time at which an event became known, stream, kind, event number, revision). It depends on the
    data alone, so that every runner and every cut into batches writes the same log. Live streams get one each for every
    epoch, since the times of two epochs or cameras cannot be compared, and no camera may wait for another.
    """

    def __init__(self, streams: list[str], edges: tuple[Edge, ...]) -> None:
        """Expect events of these streams on these edges."""
        self._silent = set(streams)
        """Streams that have not begun; until all have, even the order of their beginnings is open."""
        self._watermarks = {(stream, edge): -math.inf for stream in streams for edge in edges}
        self._heap: list[tuple[float, tuple[str, str, int, int], Event]] = []

    def begin(self, stream: str) -> None:
        """Know that a stream has begun."""
        self._silent.discard(stream)

    def add(self, batch: Batch) -> None:
        """Take in the events and watermarks of a batch."""
        if batch.info is not None or batch.end is not None:
            self.begin(batch.stream)
        for stream, edge in self._watermarks:
            if stream != batch.stream:
                continue
            for packet in batch.packets.get(edge, []):
                assert isinstance(packet, Events)
                for event in packet.events:
                    self.push(packet.t, event)
            reached = math.inf if batch.end is not None else batch.watermarks.get(edge, -math.inf)
            key = (stream, edge)
            self._watermarks[key] = max(self._watermarks[key], reached)

    def push(self, t: float, event: Event) -> None:
        """Take in one event that became known at media time ``t`` (-inf: as its stream began, inf: as it ended)."""
        heapq.heappush(self._heap, (t, event.order, event))

    def watermark(self) -> float:
        """Media time up to which the log is final, seconds."""
        return min(self._watermarks.values(), default=math.inf)

    def ready(self) -> Iterator[tuple[float, Event]]:
        """The events that are due, each with the media time at which it became known."""
        limit = self.watermark()
        while not self._silent and self._heap and self._heap[0][0] <= limit:
            t, _, event = heapq.heappop(self._heap)
            yield t, event
