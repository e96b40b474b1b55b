"""Questions and commands to a bus, one at a time: sections 5 and 6 of docs/PROTOCOL.md."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import zmq

from .dial import BusBroken, BusUnreachable, Line, client_keys
from .inbox import BusRefusal, read_events, read_reply
from .keys import ClientKeys
from .protocol import DEFAULT_ADDRESS, VERSION, Addresses, ProtocolError, dumps, loads
from .record import Stored

__all__ = ["BusClient", "Reply"]

_AGAIN = 5.0  # seconds until a question that may be asked twice is asked again
_PAUSE = 0.5  # seconds before a bus that was busy is asked again
_QUESTIONS = ("hello", "replay", "snapshot", "streams", "search")


class Reply(NamedTuple):
    """What the bus answers."""

    members: dict[str, Any]
    events: list[Stored]


class BusClient:
    """A connection for requests. For one thread; close it, or use it in a ``with`` statement."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        keys: str | Path | ClientKeys | None = None,
        server_key: str | Path | None = None,
        timeout: float = 10.0,
    ) -> None:
        """Begin to connect; nothing waits here.

        Args:
            address: of the bus, ``tcp://HOST:PORT`` or ``ipc://PATH``.
            keys: for a bus with keys: the file ``NAME.key_secret``.
            server_key: for a bus with keys: the file ``SERVER.key``.
            timeout: seconds for which a request waits for its answer.

        Raises:
            UsageError: an argument makes no sense.
            KeysError: a key cannot be used.
        """
        requests, used = Addresses.of(address).requests, client_keys(keys, server_key)
        self.address, self._timeout = address, timeout
        self._ids = itertools.count(1)
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self._line = Line(self._context, zmq.DEALER, requests, used, bus=address)
        except BaseException:
            self._context.term()
            raise

    def hello(self) -> dict[str, Any]:
        """What the bus says of itself."""
        return self.request("hello").members

    def streams(self) -> list[dict[str, Any]]:
        """The streams that it has events of."""
        return list(self.request("streams").members["streams"])

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
        """The newest revision of each event whose words match, best first; times in Unix seconds."""
        asked = {"text": text, "since": since, "until": until, "limit": limit}
        asked = {name: value for name, value in asked.items() if value is not None}
        return self.request("search", **asked, streams=list(streams), kinds=list(kinds)).events

    def snapshot(self, *, streams: Sequence[str] = (), kinds: Sequence[str] = ()) -> Iterator[Stored]:
        """The newest revision of every event that is open."""
        after, more = 0, True
        while more:
            found = self.request("snapshot", after=after, streams=list(streams), kinds=list(kinds))
            yield from found.events
            more = bool(found.members["more"]) and bool(found.events)
            after = found.events[-1].header.seq or 0 if found.events else 0

    def pages(
        self, after: Mapping[str, Any], *, streams: Sequence[str] = (), kinds: Sequence[str] = ()
    ) -> Iterator[Reply]:
        """Replay pages after a position of the protocol, until there is no more."""
        while True:
            page = self.request("replay", after=dict(after), streams=list(streams), kinds=list(kinds))
            yield page
            upto = int(page.members["upto"])
            if upto >= int(page.members["last"]):
                return
            if after == (after := {"seq": upto, "epoch": page.members["epoch"]}):
                raise BusBroken(self.address, ProtocolError(f"it gives nothing after {upto}"))

    def request(self, op: str, **members: Any) -> Reply:
        """Ask anything and wait for the answer.

        Raises:
            BusRefusal: the bus refuses.
            BusUnreachable: no answer came in time.
            KeyRefused: the bus does not let this key in.
            BusBroken: what answers is no bus.
        """
        id = str(next(self._ids))
        frame = dumps({"v": VERSION, "id": id, "op": op, **members})
        until = time.monotonic() + self._timeout
        # A command may have been carried out although its answer was lost: it is sent once.
        patience = _AGAIN if op in _QUESTIONS else math.inf
        again_at, busy = 0.0, None
        while (now := time.monotonic()) < until:
            if self._line.look() == "connected" and op in _QUESTIONS:
                again_at = now
            if now >= again_at and self._line.send(frame):
                again_at = now + patience
            self._wait(min(until - now, _PAUSE))
            while (frames := self._line.receive()) is not None:
                try:
                    if (reply := self._read(frames, id)) is not None:
                        return reply
                except BusRefusal as error:
                    if error.code != "busy":
                        raise
                    busy, again_at = error, now + _PAUSE
        if busy is not None:
            raise busy
        raise BusUnreachable(
            f"no bus has answered at {self.address} for {self._timeout:g} s; does it run, and is the address right?"
        )

    def _wait(self, seconds: float) -> None:
        poller = zmq.Poller()
        poller.register(self._line.socket, zmq.POLLIN)
        poller.register(self._line.monitor, zmq.POLLIN)
        poller.poll(round(seconds * 1000))

    def _read(self, frames: list[bytes], id: str) -> Reply | None:
        """The reply with this id; None for another one's."""
        try:
            members = loads(frames[0])
            if members.get("id") != id:
                return None
            read_reply(members)
            return Reply(members, read_events(frames, members) if "count" in members else [])
        except (ProtocolError, TypeError) as error:
            raise BusBroken(self.address, error) from None

    def close(self) -> None:
        """Close the connection."""
        self._line.close()
        self._context.term()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()
