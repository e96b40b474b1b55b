"""What can go wrong when a tower is asked for by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from onlooker.operators.errors import OnlookerError


class TowerError(OnlookerError):
    """A tower cannot be loaded; the message names the value and what to do."""


class UnknownModelError(TowerError):
    """No tower has this name, or this model has no such pretrained tag."""

    @classmethod
    def nearest(cls, what: str, value: str, known: Iterable[str]) -> UnknownModelError:
        """Return the error for ``value`` that proposes the most similar of the ``known`` names."""
        by_lower = {name.lower(): name for name in known}
        near = [by_lower[hit] for hit in difflib.get_close_matches(value.lower(), by_lower, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {_some(by_lower.values())}"
        return cls(f"unknown {what} {value!r}: {hint}")


def _some(names: Iterable[str], limit: int = 8) -> str:
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
