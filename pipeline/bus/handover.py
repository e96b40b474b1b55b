"""A pipeline's end of the third socket: hands its events over to a bus in another process, each once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from .intake import GROUP
from .keys import ClientKeys
from .protocol import PAGE_BYTES, REQUEST_BYTES, VERSION, Addresses, ProtocolError, dumps, loads, new_ulid
from .requests import RequestError, TakeCommand, read_command
from .sockets import DEAD_AFTER, BusError, Wake

__all__ = ["UNCONFIRMED", "Handover"]

UNCONFIRMED = 4096
"""Events that are kept until the bus has committed them."""
_ALIVE_EVERY = 2.0
_AGAIN_AFTER = 5.0
"""Seconds without a confirmation after which events are sent again."""


class Handover:
    """Keeps events until the bus says that they are committed; the bus may come, go and come back meanwhile.

    ``put`` may be called from any thread. The numbers of a run begin at 1, and the bus passes over those that it has,
    so sending again does no harm. A bus that has less than it had confirmed (another store, or one whose disk was full)
    is told the rest as a new run.
    """

    def __init__(
        self,
        address: str,
        *,
        keys: ClientKeys | None = None,
        commands: TakeCommand | None = None,
        notice: Callable[[str], None] = lambda line: None,
        again_after: float = _AGAIN_AFTER,
    ) -> None:
        """Check the address; nothing is opened yet.

        Args:
            address: of the bus: ``tcp://HOST:PORT`` or ``ipc://PATH``.
            keys: CURVE keys, where the bus asks for them.
            commands: takes commands for this pipeline, see ``TakeCommand``.
            notice: called, from the thread, with one line where the user should know something.
            again_after: seconds without a confirmation after which events are sent again.

        Raises:
            UsageError: the address is none.
        """
        self.address = address
        self._endpoint = Addresses.of(address).ingest
        self._keys, self._commands, self._notice, self._again_after = keys, commands, notice, again_after
        self.run = new_ulid()
        self.confirmed = 0
        """Events that the bus has committed."""
        self._kept: deque[bytes] = deque()
        """Events from number ``_first`` of the run on."""
        self._first = self._next = 1
        """Number of the first event that is kept, and of the next one to be sent."""
        self._streams: frozenset[str] = frozenset()
        self._changed = threading.Condition()
        self._heard = threading.Event()
        self._gone = threading.Event()
        self._results: deque[tuple[str, dict[str, Any] | RequestError]] = deque()
        self._quiet_since = self._next_alive = 0.0
        self._closing = self._stopping = False
        self._failed: str | None = None
        self._wake = Wake()
        self._thread = threading.Thread(target=self._work, name="onlooker-handover", daemon=True)

    def open(self, timeout: float = 10.0) -> None:
        """Connect, and wait until the bus answers.

        Raises:
            BusError: it does not, or it takes no events from this key.
        """
        self._thread.start()
        if not self._heard.wait(timeout):
            self._failed = self._failed or (
                f"no bus at {self.address} takes events; start `onlooker bus` there"
                + (", or check that it allows this key." if self._keys else ", or give --keys if it asks for keys.")
            )
        if self._failed is not None:
            self.close(0.0)
            raise BusError(self._failed)

    def put(self, body: bytes, timeout: float | None = None) -> bool:
        """Take an event; waits while too many are unconfirmed. Returns False if that took too long.

        Args:
            body: the event as JSON.
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            BusError: the bus takes no events of this key any more.
        """
        with self._changed:
            ready = self._changed.wait_for(lambda: self._failed or len(self._kept) < UNCONFIRMED, timeout)
            if self._failed is not None:
                raise BusError(self._failed)
            if not ready:
                return False
            self._kept.append(body)
        self._wake.set()
        return True

    def set_streams(self, streams: frozenset[str]) -> None:
        """Say which streams this pipeline has; commands for them come here."""
        self._streams, self._next_alive = streams, 0.0
        self._wake.set()

    def close(self, timeout: float) -> int:
        """Wait until all events are confirmed, say goodbye and stop; harmless when repeated.

        Returns:
            How many events were not confirmed in this time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failed or not self._kept, timeout)
        self._closing = True
        self._wake.set()
        if self._thread.is_alive() and timeout > 0 and not self._kept:
            self._gone.wait(min(timeout, 2.0))
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._wake.close()
        return len(self._kept)

    def _work(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        socket: zmq.Socket[Any] = context.socket(zmq.DEALER)
        try:
            self._connect(socket)
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            poller.register(self._wake.fileno(), zmq.POLLIN)
            while not self._stopping:
                poller.poll(100)
                self._wake.clear()
                self._read(socket)
                self._send_what_is_due(socket)
        except Exception as error:
            self._fail(f"handing over events has failed: {type(error).__name__}: {error}")
        finally:
            socket.close(linger=0)
            context.term()

    def _connect(self, socket: zmq.Socket[Any]) -> None:
        ms = round(DEAD_AFTER * 1000)
        socket.sndhwm, socket.rcvhwm, socket.maxmsgsize = 16, 256, REQUEST_BYTES
        socket.immediate = True  # nothing is queued for a bus that is not there
        socket.heartbeat_ivl, socket.heartbeat_timeout, socket.heartbeat_ttl = ms // 6, ms // 3, ms
        socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 2000
        socket.ipv6 = "[" in self._endpoint
        if self._keys is not None:
            self._keys.apply(socket)
        socket.connect(self._endpoint)

    def _read(self, socket: zmq.Socket[Any]) -> None:
        while True:
            try:
                words = socket.recv_multipart(zmq.NOBLOCK)[0]
            except zmq.Again:
                return
            try:
                members = loads(words)
            except ProtocolError:
                continue
            op, mine = members.get("op"), members.get("run") == self.run
            if op == "stored" and mine and isinstance(members.get("n"), int):
                self._stored(members["n"])
            elif op == "refused" and mine:
                self._refused(members)
            elif op == "command":
                self._command(members)

    def _stored(self, n: int) -> None:
        """The bus has all events up to number ``n``."""
        self._heard.set()
        with self._changed:
            if n < self._first - 1:
                self.run, self._first, self._next = new_ulid(), 1, 1
                return
            count = min(n - self._first + 1, len(self._kept))
            for _ in range(count):
                self._kept.popleft()
            self._first += count
            self._next = max(self._next, self._first)
            self.confirmed += count
            if count or self._next == self._first:
                self._quiet_since = time.monotonic()
            self._changed.notify_all()
            if self._closing and not self._kept:
                self._gone.set()

    def _refused(self, members: dict[str, Any]) -> None:
        error = members.get("error")
        why = str(error.get("message", "")) if isinstance(error, dict) else ""
        if members.get("n") == 0:
            self._fail(f"the bus at {self.address} refuses events: {why}")
            self._heard.set()
        else:
            self._notice(f"the bus has refused an event: {why}")

    def _fail(self, why: str) -> None:
        with self._changed:
            self._failed = self._failed or why
            self._changed.notify_all()

    def _send_what_is_due(self, socket: zmq.Socket[Any]) -> None:
        now = time.monotonic()
        while self._results:
            id, result = self._results.popleft()
            self._try(socket, [dumps({"v": VERSION, "op": "done", "id": id, **_told(result)})])
        if now >= self._next_alive:
            alive = {"v": VERSION, "op": "alive", "run": self.run, "streams": sorted(self._streams)}
            self._next_alive = now + (_ALIVE_EVERY if self._try(socket, [dumps(alive)]) else 0.2)
        if self._next > self._first and now - self._quiet_since >= self._again_after:
            self._next, self._quiet_since = self._first, now
        while message := self._next_events():
            if not self._try(socket, message):
                break
            self._next += len(message) - 1
        if self._closing and not self._kept and not self._gone.is_set():
            self._try(socket, [dumps({"v": VERSION, "op": "bye", "run": self.run})])

    def _next_events(self) -> list[bytes]:
        """A message with the next events; empty where all have been sent."""
        with self._changed:
            start = self._next - self._first
            bodies: list[bytes] = []
            size = 0
            while start + len(bodies) < len(self._kept) and len(bodies) < GROUP and size < PAGE_BYTES // 2:
                bodies.append(self._kept[start + len(bodies)])
                size += len(bodies[-1])
        if not bodies:
            return []
        words = {"v": VERSION, "op": "put", "run": self.run, "n": self._next, "count": len(bodies)}
        return [dumps(words), *bodies]

    @staticmethod
    def _try(socket: zmq.Socket[Any], frames: list[bytes]) -> bool:
        try:
            socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _command(self, members: dict[str, Any]) -> None:
        id, given = members.get("id"), members.get("command")
        if not isinstance(id, str) or not isinstance(given, dict) or not isinstance(given.get("op"), str):
            return

        def done(result: dict[str, Any] | RequestError) -> None:
            self._results.append((id, result))
            self._wake.set()

        try:
            if self._commands is None:
                raise RequestError("unavailable", "this pipeline takes no commands")
            command = read_command(given)
        except RequestError as error:
            done(error)
            return
        self._commands(command, done)


def _told(result: dict[str, Any] | RequestError) -> dict[str, Any]:
    if isinstance(result, RequestError):
        return {"ok": False, "error": {"code": result.code, "message": result.message}}
    return {"ok": True, **result}
