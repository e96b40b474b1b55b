"""The driver of a run in Ray: starts the actors, keeps a window of batches moving, and takes the results in order."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import ray
from ray import cloudpickle

from onlooker.operators.contract import End
from onlooker.operators.packets import Packet

from ..config import StageSpec
from ..errors import OnlookerError, UsageError
from ..graph import Edge, Graph
from .batch import Batch, SourceSpec
from .ray_actors import Failure, Identity, NotOpened, SourceActor, StageActor
from .ray_flow import Chain, Item, Lost, Slot, fetch
from .ray_instance import worker_environment
from .streams import Requests, not_opened

__all__ = ["Drive", "check_room"]

_POLL = 0.1
"""Seconds after which the waiting driver looks for an interrupt, a control packet, or a stream to add or remove."""

_CLOSE_SECONDS = 5.0
"""How long operators may take to close after a complete run."""


@dataclass
class _Feed:
    """One stream: its source actor, and how far the driver has taken it."""

    spec: SourceSpec
    placement: StageSpec
    restarts_left: int
    told: bool = False
    """Whether it was told to end."""
    actor: Any = None
    loaded: Any = None
    """Reference of what the actor's ``load`` returns."""
    generator: Any = None
    """References of the batches to come; None when there are no more."""
    last: Any = None
    """Reference of the last batch that the source gave."""
    before_last: Any = None
    """The one before: where to go on if the last one turns out to have died with its actor."""
    reached: tuple[int, float] | None = None
    """Live: the open epoch, and the time of its last frame."""
    items: deque[Item] = field(default_factory=deque)
    """The stream's batches in the chain."""
    ended: bool = False
    """Whether the stream's last batch has been yielded."""


class Drive:
    """What exists while Ray is up. All calls into Ray come from the one thread that iterates over ``batches``."""

    def __init__(
        self,
        graph: Graph,
        sinks: frozenset[Edge],
        requests: Requests,
        *,
        private: bool,
    ) -> None:
        """Prepare; ``start`` makes the actors.

        Args:
            graph: what to run.
            sinks: edges that the consumer of the batches reads, besides events.
            requests: what is asked from outside while the run goes on.
            private: whether the workers share this machine's package and have inherited our environment.
        """
        self._graph = graph
        self._requests = requests
        self._package: bytes = cloudpickle.dumps((graph, sinks))  # type: ignore[no-untyped-call]
        self._identity = Identity.of_this_process(with_weights=not private)
        self._runtime_env = None if private else {"env_vars": worker_environment(graph.runtime.threads)}
        self._private = private
        self._placement = StageSpec()
        self._stay = False
        self._feeds: list[_Feed] = []
        self._chain = Chain([])
        self._window = 0
        self._opening: list[Any] = []
        """References of what the stages' ``open`` returns; empty once all have come."""

    def start(self, specs: list[SourceSpec], placement: StageSpec, *, stay: bool = False) -> None:
        """Start all actors; sources begin to read while the models load."""
        self._placement, self._stay = placement, stay
        runtime = self._graph.runtime
        self._requests.begin((spec.stream for spec in specs), stay=stay)
        for spec in specs:
            self._open(spec, placement)
        stages = []
        for name in self._graph.stages:
            stage = self._graph.stage_spec(name)
            start = partial(self._start_stage, name, stage)
            stages.append(
                [
                    Slot(f"stage {name!r}", start, stage.max_restarts, runtime.snapshot_every)
                    for _ in range(stage.replicas)
                ]
            )
        self._chain = Chain(stages)
        self._window = runtime.in_flight * len(self._chain.slots)

    def batches(self) -> Iterator[Batch]:
        """Drive the run to its end and yield the results, each stream's in order.

        Raises:
            OnlookerError: an actor was lost for good.
            Exception: what a source or an operator raised.
        """
        while True:
            yield from self._serve()
            if not (waiting := self._waiting()):
                if not self._stay or self._requests.interrupted.is_set():
                    return
                time.sleep(_POLL)
                continue
            ready, _ = ray.wait(list(waiting), timeout=_POLL, fetch_local=False)
            for reference in ready:
                feed = waiting[reference]
                batch = self._take(feed) if reference is feed.generator else self._result(feed)
                self._dismiss_if_done(feed)
                if batch is not None:
                    yield batch

    def close(self) -> None:
        """After a complete run: let the operators close."""
        self._chain.close(_CLOSE_SECONDS)

    def kill(self) -> None:
        """End all actors."""
        for feed in self._feeds:
            ray.kill(feed.actor)
        self._chain.kill()

    def _make(self, actor_class: type[Any], placement: StageSpec, **options: Any) -> Any:
        # Ray could restart a lost actor by itself, but empty: restoring it is ours to do.
        return (
            ray.remote(actor_class)
            .options(
                num_cpus=placement.num_cpus,
                num_gpus=placement.num_gpus,
                max_restarts=0,
                runtime_env=self._runtime_env,
                **options,
            )
            .remote(self._identity)
        )

    def _start_stage(self, name: str, placement: StageSpec) -> Any:
        actor = self._make(StageActor, placement)
        self._opening.append(actor.open.remote(self._package, name))
        return actor

    def _open(self, spec: SourceSpec, placement: StageSpec) -> None:
        """Begin a stream."""
        feed = _Feed(spec, placement, placement.max_restarts)
        self._start_source(feed, after=None)
        self._feeds.append(feed)

    def _start_source(self, feed: _Feed, after: Batch | None) -> None:
        """Start the source actor of a stream, to go on behind the batch ``after`` if there is one."""
        feed.actor = self._make(SourceActor, feed.placement, max_concurrency=2)
        feed.loaded = feed.actor.load.remote(self._package, feed.spec)
        read = feed.actor.read.options(
            num_returns="streaming", _generator_backpressure_num_objects=self._graph.runtime.in_flight
        )
        feed.generator = read.remote(feed.loaded, after)
        if feed.told:
            feed.actor.interrupt.remote(feed.loaded)

    def _dismiss_if_done(self, feed: _Feed) -> None:
        """Let the actor of a stream go that has nothing more to bring."""
        if feed.generator is None and not feed.items and feed in self._feeds:
            self._feeds.remove(feed)
            ray.kill(feed.actor)

    def _waiting(self) -> dict[Any, _Feed]:
        """What can move next: results at the head of each stream, and sources whose stream has room in its window."""
        results = {feed.items[0].result: feed for feed in self._feeds if feed.items}
        sources = {
            feed.generator: feed
            for feed in self._feeds
            if feed.generator is not None and len(feed.items) < self._window
        }
        return results | sources

    def _serve(self) -> Iterator[Batch]:
        """Do what other threads or a signal handler have asked for; yields the ends of streams that find no room."""
        while self._requests.changes:
            change = self._requests.changes.popleft()
            if isinstance(change, str):
                self._interrupt(change)
            elif (problem := self._add(change)) is not None:
                self._requests.ended(change.stream)
                yield not_opened(self._graph, change, problem)
        if self._requests.interrupted.is_set():
            self._interrupt(None)
        self._serve_clips()
        if self._opening:
            _, self._opening = ray.wait(self._opening, num_returns=len(self._opening), timeout=0, fetch_local=False)
            for feed in self._feeds if not self._opening else ():
                self._credit(feed, self._graph.runtime.in_flight)
        begun = all(feed.last is not None for feed in self._feeds)
        while begun and self._requests.controls:
            control = self._requests.controls.popleft()
            for feed in self._feeds:
                if control.stream in (None, feed.spec.stream) and feed.generator is not None and not feed.ended:
                    self._submit(feed, ray.put(Batch(feed.spec.stream, control=(control,))))

    def _serve_clips(self) -> None:
        """Pass on to sources what is wanted of their recordings, and that nothing is wanted any more."""
        while self._requests.clips:
            stream, request = self._requests.clips.popleft()
            for feed in self._feeds:
                if feed.spec.stream == stream:
                    feed.actor.clip.remote(feed.loaded, request)
        while self._requests.released:
            stream = self._requests.released.popleft()
            for feed in self._feeds:
                if feed.spec.stream == stream and feed.ended:
                    feed.actor.release.remote(feed.loaded)

    def _interrupt(self, stream: str | None) -> None:
        """Tell the sources of a stream, or of all, to end it."""
        for feed in self._feeds:
            if stream in (None, feed.spec.stream) and not (feed.told or feed.ended):
                feed.told = True
                feed.actor.interrupt.remote(feed.loaded)

    def _add(self, spec: SourceSpec) -> UsageError | None:
        """Begin a stream that was not there from the start; says why where it cannot be."""
        placement = self._placement
        if self._private:  # whose CPUs are what was reserved at the start, and no bound
            placement = placement.model_copy(update={"num_cpus": 0.0})
        else:
            try:
                check_room(placement.num_cpus, placement.num_gpus, free=True)
            except UsageError as error:
                return error
        self._open(spec, placement)
        if not self._opening:
            self._credit(self._feeds[-1], self._graph.runtime.in_flight)
        return None

    def _credit(self, feed: _Feed, batches: int, arrival: float | None = None) -> None:
        if self._graph.live:
            feed.actor.credit.remote(feed.loaded, batches, arrival)

    def _take(self, feed: _Feed) -> Batch | None:
        """Take the next batch of a source and pass it on; returns it if no stage has anything to do with it."""
        try:
            reference = next(feed.generator)
        except StopIteration:
            feed.generator = None
            return None
        if feed.last is None and isinstance(first := fetch(reference), Failure):
            # A source that cannot be opened is told at once, not when the models are loaded.
            error = first.exception()
            if not (isinstance(first, NotOpened) and isinstance(error, OnlookerError)):
                raise error
            return self._over(feed, not_opened(self._graph, feed.spec, error))
        if feed.ended and not isinstance(fetch(reference), Batch):
            feed.generator = None  # lost while it lingered: there is nothing to go on with
            return None
        feed.before_last, feed.last = feed.last, reference
        if self._graph.live and isinstance(batch := fetch(reference), Batch):
            if batch.news:
                return self._over(feed, batch)
            feed.reached = (batch.epoch, batch.wall.t) if batch.wall is not None else None
        self._submit(feed, reference)
        return None

    def _submit(self, feed: _Feed, reference: Any) -> None:
        feed.items.append(self._chain.submit(feed.spec.stream, reference))

    def _result(self, feed: _Feed) -> Batch | None:
        """The result at the head of a stream; None where actors were lost and it has to be made again."""
        found = fetch(feed.items[0].result)
        if isinstance(found, Failure):
            raise found.exception()
        if not isinstance(found, Batch):
            self._recover()
            return None
        feed.items.popleft()
        if feed.ended:
            return None
        self._over(feed, found)
        if found.frames:
            self._credit(feed, 1, found.arrival)
        if not self._private:
            found.arrival = None  # by the clock of a machine that may be another
        return _owned(found)

    def _over(self, feed: _Feed, batch: Batch) -> Batch:
        """Note whether a stream is over with ``batch``; returns it."""
        if batch.final:
            feed.ended = True
            self._requests.ended(feed.spec.stream)
        return batch

    def _recover(self) -> None:
        """Replace what was lost and send again what was lost with it."""
        items = sorted((item for feed in self._feeds for item in feed.items), key=lambda item: item.order)
        found = self._chain.settle(items)
        for item, seen in zip(items, found, strict=True):
            if isinstance(seen[0], Lost):
                feed = next(f for f in self._feeds if item in f.items)
                # In its place, since places in the chain are numbered.
                item.refs[0] = ray.put(_end_of_epoch(feed))
                self._resume_source(feed, seen[0].reason)
        self._chain.rebuild(items, found)

    def _resume_source(self, feed: _Feed, reason: str) -> None:
        """Let a new actor read on behind the last batch that the lost one delivered."""
        if feed.restarts_left == 0:
            raise OnlookerError(
                f"the source of {feed.spec.stream!r} was lost and not replaced again (max_restarts): {reason}"
            )
        feed.restarts_left -= 1
        feed.last = feed.before_last
        delivered = None if feed.last is None else fetch(feed.last)
        ray.kill(feed.actor)
        if isinstance(delivered, Batch):
            if delivered.final:
                return
            delivered = Batch(delivered.stream, cursor=delivered.cursor)
        self._start_source(feed, delivered if isinstance(delivered, Batch) else None)
        if not self._opening:
            self._credit(feed, max(1, self._graph.runtime.in_flight - len(feed.items)))


def check_room(cpus: float, gpus: float, *, free: bool) -> None:
    """Refuse what Ray would wait for without end.

    Args:
        cpus: what is to be reserved.
        gpus: the same.
        free: compare with what nobody has reserved, else with all that there is.

    Raises:
        UsageError: there is less.
    """
    there: dict[str, float] = ray.available_resources() if free else ray.cluster_resources()  # type: ignore[no-untyped-call]
    for resource, key, wanted in (("CPU", "num_cpus", cpus), ("GPU", "num_gpus", gpus)):
        if wanted > there.get(resource, 0.0):
            raise UsageError(
                f"the actors of this graph reserve {wanted:g} {resource}s, Ray has {there.get(resource, 0.0):g}"
                f"{' left' if free else ''}; lower {key} of its stages, e.g. -o stages.models.{key}=0."
            )


def _end_of_epoch(feed: _Feed) -> Batch:
    """What stands for a batch that died with its source: a live stream begins a new epoch with the next source."""
    batch = Batch(feed.spec.stream)
    if feed.reached is not None:
        epoch, t = feed.reached
        batch.epoch, batch.end = epoch, End("lost", math.nextafter(t, math.inf), final=False)
        feed.reached = None
    return batch


def _owned(batch: Batch) -> Batch:
    """The batch with arrays of its own, so that what a sink keeps does not keep the object store full."""
    batch.packets = {edge: [_owned_packet(packet) for packet in packets] for edge, packets in batch.packets.items()}
    return batch


def _owned_packet(packet: Packet) -> Packet:
    values = {f.name: getattr(packet, f.name) for f in dataclasses.fields(packet)}
    arrays: dict[str, Any] = {name: value.copy() for name, value in values.items() if isinstance(value, np.ndarray)}
    return dataclasses.replace(packet, **arrays) if arrays else packet
