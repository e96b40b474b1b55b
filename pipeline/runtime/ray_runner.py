"""Runs a graph in Ray actors: one per source, one per stage (or several), this process at the end.

    source actor --(streaming generator, backpressure)--> stage actors --(references)--> driver, sinks

Only references pass through the driver on the way. The driver submits at most a window of batches per stream, and a
source runs at most ``runtime.in_flight`` batches ahead of that, so memory stays bounded and a slow sink slows the
source. Ray Compiled Graphs would save a little per call; they are not used because their removal is announced.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from onlooker.operators.contract import ClipRequest, Control

from ..config import StageSpec
from ..graph import Edge, Graph
from .batch import Batch, SourceSpec, make_source
from .ray_instance import ray_instance
from .streams import Requests

__all__ = ["RayRunner"]


class RayRunner:
    """The runner for several processes or machines; same interface and same log as ``LocalRunner``."""

    def __init__(self, graph: Graph, sinks: frozenset[Edge] = frozenset(), *, address: str | None = None) -> None:
        """Prepare to run ``graph``; Ray is started by ``run``.

        Args:
            graph: what to run.
            sinks: edges that the consumer of the batches reads, besides events.
            address: ``host:port`` of a Ray cluster to join; None for a private instance on this machine. Where the
                host program has initialised Ray, that is used and left running.
        """
        self._graph = graph
        self._sinks = sinks
        self._address = address
        self._requests = Requests()

    def interrupt(self) -> None:
        """End all streams soon, with reason ``interrupted``; what was read is still processed.

        Only raises a flag, so a signal handler may call it in the middle of a call into Ray.
        """
        self._requests.interrupted.set()

    def send(self, control: Control) -> None:
        """Hand a control packet to the nodes of its stream, or of all streams; callable from any thread."""
        self._requests.controls.append(control)

    def add(self, spec: SourceSpec) -> None:
        """Watch one more live stream; from any thread. Its actor starts a moment later.

        Where a cluster has no room for the actor, the stream ends at once and says so.

        Raises:
            UsageError: the run is not going on, the graph is for files, or there is such a stream.
            OnlookerError: the address cannot be read.
        """
        make_source(self._graph.source, spec)  # only for its errors: the source that reads is made in its actor
        self._requests.add(self._graph, spec)

    def remove(self, stream: str) -> None:
        """End one stream soon; what was read is still processed. From any thread; harmless if it has ended."""
        self._requests.remove(stream)

    def clip(self, stream: str, request: ClipRequest) -> None:
        """Ask the source of a live stream for a clip. See ``Runner.clip``."""
        self._requests.clips.append((stream, request))

    def release(self, stream: str) -> None:
        """Let a stream go that has ended. See ``Runner.release``."""
        self._requests.released.append(stream)

    def run(self, specs: list[SourceSpec], *, stay: bool = False) -> Iterator[Batch]:
        """Run to the end of all streams, or with ``stay`` until interrupted, and yield what leaves the last stage.

        Raises:
            UsageError: the cluster cannot be joined, or has no room for the actors.
            OnlookerError: an actor was lost more often than ``max_restarts``, or a worker has another onlooker.
            Exception: whatever a source or an operator raised, with the worker's traceback as its cause.
        """
        placements = [source_placement(self._graph)] * len(specs)
        for stage in self._graph.stages:
            placements += [self._graph.stage_spec(stage)] * self._graph.stage_spec(stage).replicas
        cpus = sum(placement.num_cpus for placement in placements)
        gpus = sum(placement.num_gpus for placement in placements)
        threads = self._graph.runtime.threads
        with ray_instance(self._address, cpus=max(1, math.ceil(cpus)), threads=threads) as private:
            from .ray_drive import Drive, check_room

            check_room(cpus, gpus, free=False)
            drive = Drive(self._graph, self._sinks, self._requests, private=private)
            try:
                drive.start(specs, source_placement(self._graph), stay=stay)
                yield from drive.batches()
                drive.close()
            finally:
                self._requests.close()
                drive.kill()


def source_placement(graph: Graph) -> StageSpec:
    """Where source actors run: as the source's stage says, unless that is a stage of operators."""
    stage = graph.source.stage
    return StageSpec() if stage in graph.stages else graph.stage_spec(stage)
