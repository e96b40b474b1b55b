"""The threads of a bus that answer: one reads requests and answers most of them, one searches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from ..errors import OnlookerError
from .guard import Guard, sender_key
from .keys import ServerKeys
from .protocol import ProtocolError
from .requests import COMMANDS, Answer, Command, RequestError, TakeCommand, answer, check, head, refusal, reply
from .sockets import Wake, read_message
from .store_read import StoreReader

__all__ = ["Responder"]

_AT_ONCE = 64
"""Requests that are read before replies are sent and connections looked after."""
_SEARCHES = 16
"""Searches that wait at most."""
_COMMANDS = 64
"""Commands that are under way at most."""


class _Asked(NamedTuple):
    """Where a reply goes."""

    route: list[bytes]
    id: str
    op: str


class Responder:
    """Owns the ROUTER socket; all of it belongs to its thread, but for replies that other threads hand in."""

    def __init__(
        self,
        guard: Guard,
        store: Path,
        *,
        hello: Callable[[], dict[str, Any]],
        epoch: str,
        commands: TakeCommand | None,
        keys: ServerKeys | None,
        notice: Callable[[str], None],
    ) -> None:
        """Begin to answer.

        Args:
            guard: a ROUTER that is bound; the responder closes it.
            store: file of the event store.
            hello: members of the answer to ``hello``, but for ``commands``.
            epoch: of the bus.
            commands: takes commands; None where the bus takes none.
            keys: say who may give commands; None where everybody who can connect may.
            notice: called with one line where the user should know something.
        """
        self._guard, self._socket, self._store, self._epoch = guard, guard.socket, store, epoch
        self._hello, self._commands, self._keys, self._notice = hello, commands, keys, notice
        self._wake = Wake()
        self._done: deque[tuple[_Asked, Answer | RequestError]] = deque()
        """Replies from other threads."""
        self._searches = threading.BoundedSemaphore(_SEARCHES)
        self._orders = threading.BoundedSemaphore(_COMMANDS)
        self.answered = 0
        self.malformed = 0
        """Messages that were no requests; nothing answers them."""
        self._stopping = False
        self._searcher = ThreadPoolExecutor(1, "onlooker-bus-search")
        self._thread = threading.Thread(target=self._run, name="onlooker-bus-requests", daemon=True)
        self._thread.start()

    @property
    def cut(self) -> int:
        """Connections that went too far."""
        return self._guard.cut

    def stop(self) -> None:
        """Answer no more and close the socket."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._searcher.shutdown(cancel_futures=True)
        self._wake.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake.fileno(), zmq.POLLIN)
        try:
            reader = StoreReader(self._store)
            while not self._stopping:
                poller.poll(1000)
                self._wake.clear()
                self._guard.look()
                self._read(reader)
                while self._done:
                    self._send(*self._done.popleft())
            reader.close()
        except Exception as error:
            self._notice(f"the bus answers no more: {type(error).__name__}: {error}")
        finally:
            self._guard.close()

    def _read(self, reader: StoreReader) -> None:
        for _ in range(_AT_ONCE):
            try:
                frames = read_message(self._socket, 3)
            except zmq.Again:
                return
            self._guard.heard(frames[0])
            # A REQ socket puts an empty frame before its request, and wants one before the reply.
            *route, body = frames
            if len(route) == 1 or (len(route) == 2 and not len(route[1])):
                self._take([frame.bytes for frame in route], body, reader)
            else:
                self.malformed += 1
                self._guard.end_sender(frames[0])

    def _take(self, route: list[bytes], frame: zmq.Frame, reader: StoreReader) -> None:
        try:
            id, op, members = head(frame.bytes)
        except ProtocolError:
            self.malformed += 1
            return
        asked = _Asked(route, id, op)
        try:
            found = self._answer(asked, check(op, members), sender_key(frame), reader)
        except RequestError as error:
            self._send(asked, error)
        except OnlookerError as error:
            self._send(asked, RequestError("unavailable", str(error)))
        else:
            if found is not None:
                self._send(asked, found)

    def _answer(self, asked: _Asked, members: Any, key: bytes | None, reader: StoreReader) -> Answer | None:
        """Answer at once, or None where the answer comes later."""
        self._check_role(asked.op, key)
        if asked.op == "hello":
            return Answer(self._hello() | {"commands": self._may_command(key)})
        if asked.op == "search":
            if not self._searches.acquire(blocking=False):
                raise RequestError("busy", "too many searches wait; ask again in a moment")
            self._searcher.submit(self._search, asked, members)
            return None
        if asked.op in COMMANDS:
            self._command(asked, Command(asked.op, members.model_dump(exclude_none=True)))
            return None
        return answer(asked.op, members, reader, self._epoch)

    def _may_command(self, key: bytes | None) -> bool:
        if self._commands is None or self._keys is None:
            return self._commands is not None
        access = self._keys.allowed.access(key or b"")
        return access is not None and access.role == "control"

    def _check_role(self, op: str, key: bytes | None) -> None:
        if self._keys is not None and self._keys.allowed.access(key or b"") is None:
            raise RequestError("not_allowed", "this key is allowed no more")
        if op not in COMMANDS or self._may_command(key):
            return
        if self._commands is None:
            raise RequestError("not_allowed", "this bus takes no commands; without keys start it with --commands")
        raise RequestError("not_allowed", "this key may not give commands; its role should be control")

    def _search(self, asked: _Asked, members: Any) -> None:
        """Answer a search; in the searching thread."""
        found: Answer | RequestError
        try:
            reader = StoreReader(self._store)
            try:
                found = answer(asked.op, members, reader, self._epoch)
            finally:
                reader.close()
        except OnlookerError as error:
            found = RequestError("unavailable", str(error))
        except Exception as error:
            found = RequestError("unavailable", f"the search failed: {type(error).__name__}")
        self._searches.release()
        self._hand_in(asked, found)

    def _command(self, asked: _Asked, command: Command) -> None:
        assert self._commands is not None, "roles have been checked"
        if not self._orders.acquire(blocking=False):
            raise RequestError("busy", "too many commands are under way; ask again in a moment")

        def done(result: dict[str, Any] | RequestError) -> None:
            self._orders.release()
            self._hand_in(asked, result if isinstance(result, RequestError) else Answer(result))

        self._commands(command, done)

    def _hand_in(self, asked: _Asked, found: Answer | RequestError) -> None:
        """A reply from another thread."""
        self._done.append((asked, found))
        self._wake.set()

    def _send(self, asked: _Asked, found: Answer | RequestError) -> None:
        """Send a reply; it is dropped where the client is gone or reads none: it will ask again."""
        if isinstance(found, RequestError):
            frames = refusal(asked.id, asked.op, found)
        else:
            frames = reply(asked.id, asked.op, found)
        self._socket.send_multipart([*asked.route, *frames])
        self.answered += 1
