"""What the writer of the event store remembers between groups, and what a group changes of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["Changes", "Names", "Open"]


class Open(NamedTuple):
    """An open event: the numbers of its first and of its newest revision."""

    first: int
    seq: int


class Names:
    """Small numbers for names that come again and again. New ones count only once their transaction is committed."""

    def __init__(self, rows: Iterable[tuple[int, str]]) -> None:
        """Begin with what is stored: numbers and names."""
        self._ids = {name: number for number, name in rows}
        self._next = max(self._ids.values(), default=0) + 1
        self.fresh: dict[str, int] = {}
        """Names that are not stored yet."""

    def __getitem__(self, name: str) -> int:
        """The number of a name, a new one where it has none."""
        number = self._ids.get(name) or self.fresh.get(name)
        if number is None:
            number = self.fresh[name] = self._next + len(self.fresh)
        return number

    def find(self, name: str) -> int | None:
        """The number of a name that is stored."""
        return self._ids.get(name)

    def settle(self, *, committed: bool) -> None:
        """The transaction is over."""
        if committed:
            self._ids |= self.fresh
            self._next += len(self.fresh)
        self.fresh = {}


class Changes:
    """What one group writes."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.events: list[tuple[Any, ...]] = []
        self.words: list[tuple[int, str]] = []
        self.open: dict[tuple[int, str], Open | None] = {}
        """By run and event_id; None for an event that is open no more."""
        self.streams: dict[str, tuple[int, int, str | None]] = {}
        """Last number, run, and status if it was told."""
        self.runs: dict[int, str] = {}
