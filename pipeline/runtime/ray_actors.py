"""What runs inside Ray actors: sources and stages, wrapped so that their errors travel as data.

Nothing here imports torch, that is left to the operators that need it. Nor does anything import Ray: these are plain
classes, which the runner turns into actors.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import pickle
import socket
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

from onlooker.operators.contract import ClipRequest, ContractError, Source

from ..errors import OnlookerError
from ..graph import Edge, Graph
from .batch import Batch, SourceSpec, make_source, read_stream
from .stage import Stage

__all__ = [
    "Failure",
    "Identity",
    "NotOpened",
    "RemoteTraceback",
    "Skipped",
    "SourceActor",
    "StageActor",
    "check_identity",
]


@dataclass(frozen=True)
class Identity:
    """What must agree between a driver and its workers, or their logs would differ without a word."""

    version: str
    """Version of onlooker."""
    weights: str
    """Digest of the weights in the package; empty where it was not asked for."""

    @classmethod
    def of_this_process(cls, *, with_weights: bool) -> Identity:
        """Identity of the package that this process has imported."""
        return cls(importlib.metadata.version("onlooker"), _weights_digest() if with_weights else "")


def _weights_digest() -> str:
    """Digest of names and contents of all embedded weights; 75 MB take about 0.1 s."""
    digest = hashlib.blake2b(digest_size=16)
    for name, file in sorted(_weights(importlib.resources.files("onlooker.operators"), "")):
        digest.update(name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _weights(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        name = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from _weights(entry, name)
        elif "weights/" in name:
            yield name, entry


def check_identity(driver: Identity, worker: Identity, where: str) -> None:
    """Refuse a worker that runs other code or other weights.

    Raises:
        OnlookerError: they differ; the message names both.
    """
    if driver.version != worker.version:
        raise OnlookerError(
            f"{where} has onlooker {worker.version}, this machine {driver.version}; install the same on both."
        )
    if driver.weights != worker.weights:
        raise OnlookerError(
            f"{where} has other weights ({worker.weights}) than this machine ({driver.weights}); "
            f"install the same onlooker {driver.version} on both."
        )


class RemoteTraceback(Exception):
    """Where in a worker an error was raised; the ``__cause__`` of the error."""

    def __str__(self) -> str:
        """The traceback as the worker's interpreter formats it."""
        return f"in a worker:\n{self.args[0]}"


@dataclass(frozen=True)
class Failure:
    """An error on its way to the driver, behind what was done before it."""

    error: Exception
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Wrap an error; one that cannot be pickled is replaced by one that says the same."""
        trace = "".join(traceback.format_exception(error))
        error.__traceback__ = None
        try:
            pickle.loads(pickle.dumps(error))  # what we pickled ourselves a moment ago
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)

    def exception(self) -> Exception:
        """The error, to be raised by the driver."""
        self.error.__cause__ = RemoteTraceback(self.trace)
        return self.error


@dataclass(frozen=True)
class NotOpened(Failure):
    """A source says in words for its user that it cannot be opened: the end of its stream, and of no other."""


@dataclass(frozen=True)
class Skipped:
    """In place of a batch that an actor did not take, because one before it is missing."""


class _Actor:
    """What both kinds of actors do first: make sure that driver and worker run the same."""

    def __init__(self, driver: Identity) -> None:
        """Wait for the graph."""
        self._driver = driver

    def _unpack(self, package: bytes) -> tuple[Graph, frozenset[Edge]]:
        """Graph and sinks as the driver packed them, with ``cloudpickle``.

        They come as bytes, since another version's classes might not even unpickle.

        Raises:
            OnlookerError: the driver runs another version, or has other weights.
        """
        worker = Identity.of_this_process(with_weights=bool(self._driver.weights))
        check_identity(self._driver, worker, f"the Ray worker on {socket.gethostname()}")
        graph, sinks = pickle.loads(package)  # from our own driver, over Ray, which runs its code here anyway
        return graph, sinks


class SourceActor(_Actor):
    """Reads one stream. ``interrupt``, ``credit`` and the like come in on a second thread while ``read`` blocks."""

    _graph: Graph
    _sinks: frozenset[Edge]
    _source: Source[Any]

    def load(self, package: bytes, spec: SourceSpec) -> Failure | None:
        """Make the source; nothing is opened yet."""
        try:
            self._graph, self._sinks = self._unpack(package)
            self._source = make_source(self._graph.source, spec)
        except Exception as error:
            return Failure.of(error)
        return None

    def read(self, loaded: Failure | None, after: Batch | None) -> Iterator[Batch | Failure]:
        """Read the stream to its end, or go on after a batch whose ``cursor`` another actor has left.

        Args:
            loaded: what ``load`` returned; taken as an argument, since calls on two threads keep no order.
            after: where to go on; None for the beginning.

        Yields:
            Batches; a ``Failure`` is the last, and the first where the source could not be opened.
        """
        if loaded is not None:
            yield loaded
            return
        needed = self._graph.needed_after(-1, self._sinks)
        opened = False
        try:
            for batch in read_stream(self._graph, self._source, self._sinks, after=after):
                opened = True
                batch.packets = {edge: packets for edge, packets in batch.packets.items() if edge in needed}
                yield batch
        except Exception as error:
            yield (Failure if opened or not isinstance(error, OnlookerError) else NotOpened).of(error)

    def credit(self, loaded: Failure | None, batches: int, arrival: float | None = None) -> None:
        """Allow a live source that many more batches; see ``Source.credit``, and ``loaded`` as for ``read``."""
        if loaded is None:
            self._source.credit(batches, arrival)

    def clip(self, loaded: Failure | None, request: ClipRequest) -> None:
        """Ask for a clip, which ``read`` gives; ``loaded`` as for ``read``."""
        if loaded is None:
            self._source.clip(request)

    def release(self, loaded: Failure | None) -> None:
        """Let a stream go that has ended; ``loaded`` as for ``read``."""
        if loaded is None:
            self._source.release()

    def interrupt(self, loaded: Failure | None) -> None:
        """End the stream soon; ``loaded`` as for ``read``."""
        if loaded is None:
            self._source.interrupt()


class StageActor(_Actor):
    """Runs one stage over batches in the order of their numbers, and over none out of order."""

    _stage: Stage

    def __init__(self, driver: Identity) -> None:
        """Wait for ``open``."""
        super().__init__(driver)
        self._failure: Failure | None = None
        self._replicated = False
        self._next = 0

    def open(self, package: bytes, name: str) -> None:
        """Open the operators of stage ``name``; an error comes out of the first ``step``."""
        # Arrays that come through the object store are read-only, as the packets' contract has it anyway.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        try:
            graph, sinks = self._unpack(package)
            self._replicated = graph.stage_spec(name).replicas > 1
            self._stage = Stage(graph, name, sinks)
            self._stage.open(threads_set=True)  # see worker_environment
        except Exception as error:
            self._failure = Failure.of(error)

    def step(self, number: int, batch: Batch | Failure | Skipped) -> Batch | Failure | Skipped:
        """Run the stage over batch ``number``.

        Returns:
            The batch, or what failed; ``Skipped`` if an earlier number has not been here.
        """
        if isinstance(batch, Skipped) or number != self._next:
            return Skipped()
        self._next += 1
        if isinstance(batch, Failure):
            return batch
        if self._failure is not None:
            return self._failure
        batch.cursor = None
        try:
            [batch] = self._stage.step([batch])
            if self._replicated and (node := self._stage.holds_back(batch.stream)) is not None:
                raise ContractError(
                    f"node {node!r} holds packets or a timer for a later call, which another replica may get; "
                    f"set replicas: 1."
                )
        except Exception as error:
            self._failure = Failure.of(error)
            return self._failure
        return batch

    def snapshot(self) -> tuple[int, bytes]:
        """Number of the batch that comes next, and all that a replacement of this actor needs to go on with it.

        Bytes, since arrays read from the object store would come back read-only, and operators may write to their
        states.
        """
        return self._next, pickle.dumps(self._stage.snapshot(), protocol=5)

    def restore(self, snapshot: tuple[int, bytes]) -> None:
        """Go on from a snapshot of the actor that this one replaces."""
        self._next, state = snapshot
        self._stage.restore(pickle.loads(state))  # written by another actor of this run

    def close(self) -> None:
        """Close the operators."""
        self._stage.close()
