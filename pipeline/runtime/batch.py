"""What travels between stages: some packets of one stream, and how far the stream has come."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from onlooker.operators.contract import (
    Clip,
    Context,
    Control,
    End,
    Source,
    SourceInfo,
    SourceOutputs,
    StreamState,
    WallTime,
)
from onlooker.operators.packets import Packet

from ..errors import OnlookerError
from ..graph import Edge, Graph, Node

__all__ = ["Batch", "SourceSpec", "make_source", "read_stream"]


@dataclass(frozen=True)
class SourceSpec:
    """One stream to watch: where it comes from and what it is called."""

    uri: str = field(repr=False)
    """What the user named; it may hold credentials: never write it out."""
    stream: str


@dataclass(slots=True)
class Batch:
    """A piece of one stream between two stages."""

    stream: str
    packets: dict[Edge, list[Packet]] = field(default_factory=dict)
    watermarks: dict[Edge, float] = field(default_factory=dict)
    """Media time up to which each edge is complete, seconds."""
    now: float = -math.inf
    """The engine's clock when the batch was read, see ``Inputs.now``."""
    control: tuple[Control, ...] = ()
    info: SourceInfo | None = None
    """Only in a stream's first batch."""
    end: End | None = None
    """Only in the last batch of an epoch; of the stream, if it is final."""
    epoch: int = 0
    """The epoch of the packets and of the end."""
    frames: int = 0
    """Frames that the source delivered with this batch."""
    arrival: float | None = None
    """See ``SourceOutputs.arrival``."""
    wall: WallTime | None = None
    """When the newest frame was taken, where that is not known beforehand."""
    states: tuple[StreamState, ...] = ()
    notices: tuple[str, ...] = ()
    clips: tuple[Clip, ...] = ()
    """Answers to what was asked for; they come alone."""
    news: bool = False
    """It only tells of a live stream itself: no stage has anything to do with it, so none may delay it."""
    timing: dict[str, float] = field(default_factory=dict)
    """Seconds of work spent on this batch in each stage."""
    counters: dict[str, int] = field(default_factory=dict)
    """Totals of the source so far."""
    cursor: Any = None
    """Where the source stood after this batch; only between the source and the first stage."""
    failure: OnlookerError | None = None
    """Why the source could not be opened; the stream then has no other batch."""

    @property
    def final(self) -> bool:
        """Whether the stream is over with it."""
        return self.end is not None and self.end.final


def make_source(node: Node, spec: SourceSpec) -> Source[Any]:
    """A source of ``spec`` as the graph's source node configures it, not yet open."""
    cls: Any = node.cls
    source: Source[Any] = cls(node.config, spec.uri, spec.stream)
    return source


def read_stream(
    graph: Graph, source: Source[Any], sinks: frozenset[Edge], *, after: Batch | None = None
) -> Iterator[Batch]:
    """Open ``source`` and deliver its stream to the end; closes it when done or abandoned.

    The clock of a stream that is not live is its own media time: timers then fire at the same point of the stream
    however fast it is read.

    Args:
        graph: the graph whose source node this is.
        source: made by ``make_source``, not yet open.
        sinks: edges that the consumer of the batches reads, besides events.
        after: the last batch that an earlier reader of the same stream delivered; go on behind it.
    """
    node = graph.source
    try:
        info = source.open(Context(graph.runtime.threads, outputs=graph.read_ports(node, sinks)))
        cursor = source.initial_cursor() if after is None else after.cursor
        if after is None:
            yield Batch(info.stream, info=info, cursor=cursor, news=info.live)
        over, untouched = False, info.live and after is None
        while not over:
            started = time.perf_counter()
            cursor, outputs = source.read(cursor)
            batch = _batch(node, info, outputs)
            batch.cursor = cursor
            batch.timing[node.name] = time.perf_counter() - started
            over, untouched = batch.final, untouched and not batch.packets
            # A camera that never brought a frame also ends past the stages, whose models may be loading yet.
            batch.news = bool(batch.states or batch.notices or batch.clips) or (over and untouched)
            yield batch
        while source.lingers:
            cursor, outputs = source.read(cursor)
            if outputs.clips:
                yield Batch(info.stream, clips=outputs.clips, news=True, cursor=cursor)
    finally:
        source.close()


def _batch(node: Node, info: SourceInfo, outputs: SourceOutputs) -> Batch:
    end, watermark = outputs.end, outputs.watermark
    if end is not None:
        # The instant of the end belongs to the flush: what nodes say there comes after all that they said.
        watermark = min(watermark, math.nextafter(end.t, -math.inf))
    nothing = info.live and not outputs.packets and math.isinf(watermark)
    return Batch(
        info.stream,
        packets={f"{node.name}.{port}": packets for port, packets in outputs.packets.items()},
        # What brings nothing opens no epoch in the stages.
        watermarks={} if nothing else dict.fromkeys(node.outputs, watermark),
        now=time.monotonic() if info.live else (watermark if end is None else end.t),
        end=end,
        epoch=outputs.epoch,
        frames=max((len(packets) for packets in outputs.packets.values()), default=0),
        arrival=outputs.arrival,
        wall=outputs.wall,
        states=outputs.states,
        notices=outputs.notices,
        clips=outputs.clips,
        counters=dict(outputs.counters),
    )
