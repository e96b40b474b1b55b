"""What a bridge asks of the system that it leads to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..record import Stored
from ..store_read import StoreReader

__all__ = ["Context", "Target"]


@dataclass(frozen=True)
class Context:
    """What a target may use of the bridge, on the bridge's thread."""

    reader: StoreReader
    name: str
    """The same at every start of the same bridge on the same store, another one elsewhere."""
    stop: threading.Event
    """Set when waiting is to end at once."""


class Target(Protocol):
    """The other side. All but ``abort`` is called on the bridge's thread; what fails may be opened again."""

    shown: str
    """Its address without secrets."""
    kinds: tuple[str, ...]
    streams: tuple[str, ...]
    """What to read of the store; empty for all."""
    batch: int
    """Events to send at a time, at most."""
    gather: float
    """Seconds that an event may wait for others to go with it."""
    tries: int
    """How often a batch that is refused is sent before its events are tried one by one, and left out."""

    def wants(self, event: Stored) -> bool:
        """Whether an event is to be sent."""

    def open(self, context: Context) -> None:
        """Connect. Raises ``Unreachable``."""

    def send(self, events: Sequence[Stored]) -> None:
        """Hand over, and return when all are acknowledged. Raises ``Unreachable`` or ``Refused``."""

    def tick(self) -> bool:
        """Called about every second while there is nothing to send; whether the connection is known to be sound.

        Raises ``Unreachable``.
        """

    def abort(self) -> None:
        """Make whatever waits on the network fail now; called from another thread."""

    def close(self) -> None:
        """Let go of everything. Raises nothing."""
