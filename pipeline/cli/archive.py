"""Events that have been: from the file of an event store, or from the bus that writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..bus.inbox import Gap
    from ..bus.record import Stored

__all__ = ["Archive", "open_archive"]


class Archive(Protocol):
    """What both can do."""

    def search(
        self,
        text: str,
        *,
        since: float | None = None,
        until: float | None = None,
        streams: Sequence[str] = (),
        kinds: Sequence[str] = (),
        limit: int = 50,
    ) -> list[Stored]:
        """As `StoreReader.search`."""

    def events(
        self, after: Mapping[str, Any], on_gap: Callable[[Gap], None], *, streams: Sequence[str], kinds: Sequence[str]
    ) -> Iterator[Stored]:
        """All events after a position of the protocol, as far as there are any; says what is missing."""


@contextmanager
def open_archive(where: str, keys: str | None = None, server_key: str | None = None) -> Iterator[Archive]:
    """Open a store's file, or connect to the bus at an address.

    Raises:
        OnlookerError: there is none.
    """
    if "://" in where:
        from ..bus.client import BusClient

        with BusClient(where, keys=keys, server_key=server_key) as client:
            yield _Remote(client)
        return
    from ..bus.store_read import StoreReader

    with closing(StoreReader(Path(where))) as reader:
        yield _File(reader)


class _File:
    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.search = reader.search

    def events(
        self, after: Mapping[str, Any], on_gap: Callable[[Gap], None], *, streams: Sequence[str], kinds: Sequence[str]
    ) -> Iterator[Stored]:
        from ..bus.inbox import Gap

        begin = self._reader.position(after)
        if begin.lost is not None:
            on_gap(Gap("lost", *begin.lost))
        upto, last = begin.seq, begin.seq + 1
        while upto < last:
            stored, upto, last = self._reader.page(upto, streams=streams, kinds=kinds)
            yield from stored


class _Remote:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.search = client.search

    def events(
        self, after: Mapping[str, Any], on_gap: Callable[[Gap], None], *, streams: Sequence[str], kinds: Sequence[str]
    ) -> Iterator[Stored]:
        from ..bus.inbox import Gap

        for page in self._client.pages(after, streams=streams, kinds=kinds):
            if lost := page.members["lost"]:
                on_gap(Gap("lost", lost["first"], lost["last"]))
            yield from page.events
