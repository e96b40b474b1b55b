"""Keeping a stream's gist in bounded space: curves that keep their peaks, and evenly spaced samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

__all__ = ["Curve", "EvenSample"]

T = TypeVar("T")


class Curve:
    """A curve of any length in at most ``2 * buckets`` points: each bucket keeps its lowest and its highest.

    A bucket stands for 1, 2, 4 ... values; when all buckets are full, neighbours are merged. So no peak is ever lost,
    and the same values give the same points however they come in.
    """

    def __init__(self, buckets: int = 1000) -> None:
        """Make room; ``buckets`` is even."""
        if buckets < 2 or buckets % 2:
            raise ValueError(f"the number of buckets must be even and positive, got {buckets}")
        self._low = np.empty((buckets, 2))  # (t, value)
        self._high = np.empty((buckets, 2))
        self._used = 0
        self._in_last = 0
        self._per_bucket = 1

    def add(self, t: float, value: float) -> None:
        """Add a point; ``t`` never decreases. Values that are not finite are left out."""
        if not np.isfinite(value):
            return
        if self._used and self._in_last < self._per_bucket:
            i = self._used - 1
            if value < self._low[i, 1]:
                self._low[i] = t, value
            if value > self._high[i, 1]:
                self._high[i] = t, value
            self._in_last += 1
            return
        if self._used == len(self._low):
            self._merge()
        self._low[self._used] = self._high[self._used] = t, value
        self._used += 1
        self._in_last = 1

    def _merge(self) -> None:
        half = len(self._low) // 2
        pairs = np.arange(half)
        for kept, pick in ((self._low, np.argmin), (self._high, np.argmax)):
            two = kept.reshape(half, 2, 2)
            kept[:half] = two[pairs, pick(two[:, :, 1], axis=1)]
        self._used, self._per_bucket = half, 2 * self._per_bucket

    def points(self) -> list[tuple[float, float]]:
        """The (t, value) points, times increasing."""
        points = []
        for low, high in zip(self._low[: self._used].tolist(), self._high[: self._used].tolist(), strict=True):
            points += [tuple(p) for p in (sorted((low, high)) if low[0] != high[0] else (low,))]
        return points


class EvenSample(Generic[T]):
    """At most ``limit`` items of a stream, evenly spaced in their number: every 2^k-th, k growing as needed."""

    def __init__(self, limit: int, drop: Callable[[T], None]) -> None:
        """Keep up to ``limit`` items; ``drop`` is called with each item that is thinned out."""
        if limit < 1:
            raise ValueError(f"need room for one item at least, got {limit = }")
        self.items: list[T] = []
        self._limit = limit
        self._drop = drop
        self._seen = 0
        self._stride = 1

    def offer(self, make: Callable[[], T]) -> None:
        """The next item of the stream; ``make`` is called only if it is kept."""
        take = self._seen % self._stride == 0
        if take and len(self.items) == self._limit:
            for item in self.items[1::2]:
                self._drop(item)
            del self.items[1::2]
            self._stride *= 2
            take = self._seen % self._stride == 0
        if take:
            self.items.append(make())
        self._seen += 1
