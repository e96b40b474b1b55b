"""A few of many: what is kept of a track however long it lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Bank", "spread"]

T = TypeVar("T")


@dataclass(slots=True)
class Bank(Generic[T]):
    """Items spread evenly over all that were added, in bounded memory.

    Every `stride`-th item is kept. A bank that is full gives up every second one and doubles its stride, so it always
    holds the first item, and between half of `capacity` and all of it. Until it is first full it holds everything.
    """

    capacity: int
    """An even number."""
    items: list[T] = field(default_factory=list)
    stride: int = 1
    count: int = 0
    """Items that were added."""

    def add(self, item: T) -> bool:
        """Add the next item; whether it is kept."""
        kept = self.count % self.stride == 0
        self.count += 1
        if not kept:
            return False
        if len(self.items) == self.capacity:
            self.items = self.items[::2]
            # As many items came as a multiple of the doubled stride: this one is the next that is kept.
            self.stride *= 2
        self.items.append(item)
        return True


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly: the first is one of them, the last of a longer list is not.

    Source: the hard aggregation of Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023).
    """
    if len(items) <= count:
        return list(items)
    return [items[j * len(items) // count] for j in range(count)]
