"""Runs a graph in Ray actors: one per source, one per stage (or several), this process at the end.

    source actor --(streaming generator, backpressure)--> stage actors --(references)--> driver, sinks

Only references pass through the driver on the way. The driver submits at most a window of batches per stream, and a
source runs at most ``runtime.in_flight`` batches ahead of that, so memory stays bounded and a slow sink slows the
source. Ray Compiled Graphs would save a little per call; they are not used because their removal is announced.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator

from onlooker.operators.contract import Control

from ..config import StageSpec
from ..errors import UsageError
from ..graph import Edge, Graph
from .batch import Batch, SourceSpec
from .ray_instance import ray_instance

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
        self._interrupted = threading.Event()
        self._controls: deque[Control] = deque()

    def interrupt(self) -> None:
        """End all streams soon, with reason ``interrupted``; what was read is still processed.

        Only raises a flag, so a signal handler may call it in the middle of a call into Ray.
        """
        self._interrupted.set()

    def send(self, control: Control) -> None:
        """Hand a control packet to the nodes of its stream, or of all streams; callable from any thread."""
        self._controls.append(control)

    def add(self, spec: SourceSpec) -> None:
        """Not possible here.

        Raises:
            UsageError: always.
        """
        raise UsageError("streams cannot be added or removed in a run on Ray; use runner='local', or another run.")

    def remove(self, stream: str) -> None:
        """Not possible here; raises as ``add`` does."""
        raise UsageError("streams cannot be added or removed in a run on Ray; use runner='local', or another run.")

    def run(self, specs: list[SourceSpec]) -> Iterator[Batch]:
        """Run to the end of all streams and yield what leaves the last stage.

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
            _check_room(cpus, gpus)
            from .ray_drive import Drive

            drive = Drive(self._graph, self._sinks, self._interrupted, self._controls, private=private)
            try:
                drive.start(specs, source_placement(self._graph))
                yield from drive.batches()
                drive.close()
            finally:
                drive.kill()


def source_placement(graph: Graph) -> StageSpec:
    """Where source actors run: as the source's stage says, unless that is a stage of operators."""
    stage = graph.source.stage
    return StageSpec() if stage in graph.stages else graph.stage_spec(stage)


def _check_room(cpus: float, gpus: float) -> None:
    """Refuse what Ray would wait for without end.

    Raises:
        UsageError: the actors reserve more than there is.
    """
    import ray

    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for resource, key, wanted in (("CPU", "num_cpus", cpus), ("GPU", "num_gpus", gpus)):
        if wanted > there.get(resource, 0.0):
            raise UsageError(
                f"the actors of this graph reserve {wanted:g} {resource}s, Ray has {there.get(resource, 0.0):g}; "
                f"lower {key} of its stages, e.g. -o stages.models.{key}=0."
            )
