"""The chain of stage actors: hands batches from actor to actor, and rebuilds what is lost when one dies.

The driver passes on references only; the packets go from actor to actor through the object store. Each slot (a stage
actor and its replacements) numbers the batches that it is given. An actor takes them in that order and skips whatever
comes after a gap, so a batch that was lost on the way holds back its successors instead of being overtaken.

Recovery rests on that. A slot keeps the inputs since its last snapshot; when its actor dies, a new one is restored from
the snapshot, is given the inputs again whose results had already arrived (these results are dropped, they would be the
same), and then takes up those that had not. No event is lost or told twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from ..errors import OnlookerError
from .ray_actors import Skipped

__all__ = ["Chain", "Item", "Lost", "Slot", "fetch"]

_log = logging.getLogger(__name__)

Ref = Any
"""An ``ObjectRef`` of a Batch, Failure or Skipped."""


@dataclass(frozen=True)
class Lost:
    """In place of a result that died with its actor."""

    reason: str


def fetch(ref: Ref) -> Any:
    """The object behind ``ref``, or ``Lost``; waits for it.

    Raises:
        OnlookerError: the object is gone with its node, or the worker could not take or give it.
    """
    try:
        return ray.get(ref)
    except (RayActorError, WorkerCrashedError, OutOfMemoryError) as error:  # also where an input died this way
        return Lost(next(iter(str(error).splitlines()), type(error).__name__))
    except ObjectLostError:
        raise OnlookerError("a node of the Ray cluster was lost with the packets on it; start the run again.") from None
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise RuntimeError(f"a Ray worker failed: {type(cause).__name__}: {cause}") from None


class Slot:
    """The place of one stage actor, and what it takes to replace it."""

    def __init__(self, name: str, start: Callable[[], Any], max_restarts: int, snapshot_every: int) -> None:
        """Start the actor.

        Args:
            name: what error messages call it.
            start: makes an opened actor.
            max_restarts: how often it may be replaced.
            snapshot_every: batches between two snapshots.
        """
        self.name = name
        self.actor = start()
        self._start = start
        self._restarts_left = max_restarts
        self._keep = max_restarts > 0
        self._every = snapshot_every
        self._next = 0
        self._log: dict[int, Ref] = {}
        """Inputs since the snapshot by number."""
        self._snapshot: Ref | None = None
        self._snapshot_next = 0
        """Number of the first batch after the snapshot."""
        self._taking: Ref | None = None
        """A snapshot that was asked for and is not there yet."""

    def submit(self, ref: Ref) -> tuple[int, Ref]:
        """Give the actor its next batch; returns the batch's number here, and the result to be."""
        number = self._next
        self._next += 1
        result = self.resubmit(number, ref)
        if self._keep:
            self._take_snapshot()
        return number, result

    def resubmit(self, number: int, ref: Ref) -> Ref:
        """Give the actor a batch that it, or the one it replaces, has not taken."""
        if self._keep:
            self._log[number] = ref
        return self.actor.step.remote(number, ref)

    def replace(self, missing: Sequence[int], reason: str) -> None:
        """Put a new actor in this place, up to the first of the batches whose results are ``missing``.

        Raises:
            OnlookerError: it has been replaced often enough.
        """
        if self._restarts_left == 0:
            raise OnlookerError(f"{self.name} was lost and not replaced again (max_restarts): {reason}")
        self._restarts_left -= 1
        _log.info("%s was lost (%s); a new actor takes its place", self.name, reason)
        self._settle_snapshot(timeout=None)
        ray.kill(self.actor)
        self.actor = self._start()
        if self._snapshot is not None:
            self.actor.restore.remote(self._snapshot)
        for number in sorted(self._log.keys() - set(missing)):
            self.actor.step.remote(number, self._log[number])

    def _take_snapshot(self) -> None:
        self._settle_snapshot(timeout=0)
        if self._taking is None and self._next - self._snapshot_next >= self._every:
            self._taking = self.actor.snapshot.remote()

    def _settle_snapshot(self, timeout: float | None) -> None:
        """Adopt the snapshot under way if it is there, and forget the inputs before it."""
        if self._taking is None or not ray.wait([self._taking], timeout=timeout, fetch_local=False)[0]:
            return
        reference, self._taking = self._taking, None
        snapshot = fetch(reference)
        if isinstance(snapshot, Lost):
            return
        self._snapshot = reference
        self._snapshot_next = snapshot[0]  # its own count: an actor that skips batches is behind ours
        self._log = {number: ref for number, ref in self._log.items() if number >= self._snapshot_next}


@dataclass(eq=False)
class Item:
    """One batch on its way through the chain."""

    stream: str
    order: int
    """Number in the order of submission."""
    refs: list[Ref]
    """The batch as the source gave it, then after each stage."""
    places: list[tuple[Slot, int]] = field(default_factory=list)
    """Per stage the slot, and the batch's number there."""

    @property
    def result(self) -> Ref:
        """The batch after the last stage."""
        return self.refs[-1]


class Chain:
    """The stages one after the other, each with one slot or, if it is stateless, several."""

    def __init__(self, stages: list[list[Slot]]) -> None:
        """Chain up slots."""
        self._stages = stages
        self._submitted = 0

    @property
    def slots(self) -> list[Slot]:
        """All slots."""
        return [slot for stage in self._stages for slot in stage]

    def submit(self, stream: str, ref: Ref) -> Item:
        """Send a batch through all stages; never blocks."""
        item = Item(stream, self._submitted, [ref])
        for stage in self._stages:
            slot = stage[self._submitted % len(stage)]
            number, result = slot.submit(item.refs[-1])
            item.places.append((slot, number))
            item.refs.append(result)
        self._submitted += 1
        return item

    def settle(self, items: Sequence[Item]) -> list[list[Any]]:
        """Wait until nothing moves any more.

        Args:
            items: all items whose results have not been used, in the order in which they were submitted.

        Returns:
            Per item what stands behind each of its references.
        """
        refs = list({ref for item in items for ref in item.refs})
        ray.wait(refs, num_returns=len(refs), fetch_local=False)
        return [[fetch(ref) for ref in item.refs] for item in items]

    def rebuild(self, items: Sequence[Item], found: list[list[Any]]) -> None:
        """Replace lost actors and send what is missing through the chain again.

        Args:
            items: as for ``settle``; first references that were lost have been replaced by the caller.
            found: what ``settle`` returned.

        Raises:
            OnlookerError: an actor was lost more often than ``max_restarts``.
        """
        for stage in range(len(self._stages)):
            missing: dict[Slot, list[int]] = {}
            lost: dict[Slot, str] = {}
            for item, seen in zip(items, found, strict=True):
                slot, number = item.places[stage]
                before, after = seen[stage], seen[stage + 1]
                if isinstance(after, Lost | Skipped):
                    missing.setdefault(slot, []).append(number)
                if isinstance(after, Lost) and not isinstance(before, Lost):
                    lost.setdefault(slot, after.reason)
            for slot, reason in lost.items():
                slot.replace(missing[slot], reason)
            for item, seen in zip(items, found, strict=True):
                slot, number = item.places[stage]
                if isinstance(seen[stage + 1], Lost | Skipped):
                    item.refs[stage + 1] = slot.resubmit(number, item.refs[stage])

    def close(self, timeout: float) -> None:
        """Let the operators close what they opened; an actor that takes longer than ``timeout`` seconds is left."""
        closing = [slot.actor.close.remote() for slot in self.slots]
        try:
            ray.get(closing, timeout=timeout)
        except (GetTimeoutError, RayActorError, RayTaskError) as error:
            _log.info("closing a stage: %s", error)

    def kill(self) -> None:
        """End all actors."""
        for slot in self.slots:
            ray.kill(slot.actor)
