"""The third socket of a bus: pipelines in other processes hand over their events (section 8 of the protocol)."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import zmq
from pydantic import Field, StringConstraints, ValidationError

from onlooker.operators.events import STREAM_NAME

from .alarms import Alarms
from .guard import Guard, sender_key
from .intake import GROUP, Given
from .keys import ServerKeys
from .members import Members, Name
from .protocol import PAGE_BYTES, VERSION, ProtocolError, dumps, loads
from .record import Record
from .requests import Command, RequestError
from .sockets import BusError, Wake, read_message
from .store import EventStore

__all__ = ["DEAD_RUN", "Ingest"]

DEAD_RUN = 10.0
"""Seconds of silence after which a run is taken for dead."""
_AT_ONCE = 64
_WAIT_FOR_ROOM = 1.0
"""Seconds for which handed events wait for a full queue; then they are passed over, and come again."""
_COMMAND_SECONDS = 10.0
_MOST_RUNS = 1024

_Done = Callable[[dict[str, Any] | RequestError], None]
_RUN = Annotated[str, StringConstraints(pattern=STREAM_NAME, max_length=64)]


class _Put(Members):
    run: _RUN
    n: Annotated[int, Field(ge=1, lt=1 << 53)]
    count: Annotated[int, Field(ge=1, le=GROUP)]


class _Alive(Members):
    run: _RUN
    streams: Annotated[list[Name], Field(max_length=1024)] = []


class _Bye(Members):
    run: _RUN


class _Why(Members):
    code: Annotated[str, StringConstraints(pattern=r"^[a-z_]+$", max_length=40)]
    message: Annotated[str, Field(max_length=1000)]


class _Obeyed(Members):
    id: Annotated[str, Field(max_length=64)]
    ok: bool
    stream: Name | None = None
    ask: Annotated[str, Field(max_length=64)] | None = None
    error: _Why | None = None


_MESSAGES: Mapping[Any, type[Members]] = {"put": _Put, "alive": _Alive, "bye": _Bye, "done": _Obeyed}


@dataclass(slots=True)
class _Run:
    """A pipeline that hands over events."""

    route: bytes | None
    """Where it is connected; None for one of an earlier start of the bus that has not come back."""
    accepted: int
    """Its last number that is committed, or on the way to it."""
    committed: int
    heard: float
    streams: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Order:
    """A command on its way through some runs."""

    done: _Done
    until: float
    waiting: set[str]
    """Ids of the messages that nobody has answered yet."""
    accepted: int = 0
    members: dict[str, Any] = field(default_factory=dict)
    error: RequestError | None = None


class Ingest:
    """Owns the ROUTER socket of pipelines; all of it belongs to its thread, but for ``command``."""

    def __init__(
        self,
        guard: Guard,
        store: EventStore,
        alarms: Alarms,
        give: Callable[[Given, float | None], bool],
        *,
        keys: ServerKeys | None,
        dead_run: float,
        notice: Callable[[str], None],
    ) -> None:
        """Begin to take events.

        Args:
            guard: a ROUTER that is bound; closed here.
            store: knows how far each run has come.
            alarms: for runs that are lost.
            give: puts events into the queue of the publisher.
            keys: say who may hand over events; None where everybody who can connect may.
            dead_run: seconds of silence after which a run is taken for dead.
            notice: called with one line where the user should know something.
        """
        self._guard, self._socket, self._store, self._alarms, self._give = guard, guard.socket, store, alarms, give
        self._keys, self._dead_run, self._notice = keys, dead_run, notice
        self._wake = Wake()
        self._settled: deque[tuple[str, int]] = deque()
        """Runs of which the publishing thread has committed events up to a number."""
        self._over: deque[tuple[str, int]] = deque()
        """Runs that have said goodbye, with their last numbers, all committed."""
        self._commands: deque[tuple[Command, _Done]] = deque()
        self._orders: dict[str, _Order] = {}
        """Id of a message that carries a command -> the command."""
        self._numbers = itertools.count(1)
        now = time.monotonic()
        self._runs = {run: _Run(None, n, n, now) for run in store.open_runs() for n in [store.run_number(run)]}
        self.malformed = 0
        """Messages that were none of the protocol's."""
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="onlooker-bus-ingest", daemon=True)
        self._thread.start()

    @property
    def cut(self) -> int:
        """Connections that went too far."""
        return self._guard.cut

    @property
    def runs(self) -> int:
        """Runs that are connected."""
        return sum(run.route is not None for run in list(self._runs.values()))

    def command(self, command: Command, done: _Done) -> None:
        """Take a command for the runs; see ``TakeCommand``."""
        self._commands.append((command, done))
        self._wake.set()

    def stop(self) -> None:
        """Take no more and close the socket."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._wake.close()

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake.fileno(), zmq.POLLIN)
        try:
            while not self._stopping:
                poller.poll(1000)
                self._wake.clear()
                self._guard.look()
                self._read()
                while self._settled:
                    self._confirm(*self._settled.popleft())
                while self._over:
                    name, last = self._over.popleft()
                    self._confirm(name, last)
                    self._runs.pop(name, None)
                while self._commands:
                    self._pass_on(*self._commands.popleft())
                self._look_at_the_clock()
        except BusError:  # the publisher has stopped, and has said why
            pass
        except Exception as error:
            self._notice(f"the bus takes no more events of other processes: {type(error).__name__}: {error}")
        finally:
            while self._orders:
                self._finish(next(iter(self._orders.values())))
            self._guard.close()

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                frames = read_message(self._socket, 2 + GROUP)
            except zmq.Again:
                return
            self._guard.heard(frames[0])
            if not 2 <= len(frames) <= 2 + GROUP or sum(map(len, frames)) > PAGE_BYTES + (64 << 10):
                self.malformed += 1
                self._guard.end_sender(frames[0])
                continue
            try:
                self._take(frames[0].bytes, frames[1], frames[2:])
            except (ProtocolError, ValidationError):
                self.malformed += 1

    def _take(self, route: bytes, words: zmq.Frame, bodies: Sequence[zmq.Frame]) -> None:
        members = loads(words.bytes)
        model = _MESSAGES.get(members.get("op")) if isinstance(members.get("op"), str) else None
        if model is None or members.get("v") != VERSION:
            raise ProtocolError("no message of this version")
        message = model.model_validate(members)
        if isinstance(message, _Obeyed):
            self._obeyed(message)
            return
        assert isinstance(message, _Put | _Alive | _Bye)
        if not self._may_hand_over(sender_key(words)):
            error = {"code": "not_allowed", "message": "this key may not hand over events; its role should be publish"}
            self._send(route, {"op": "refused", "run": message.run, "n": 0, "error": error})
            return
        run = self._run_of(message.run, route)
        if isinstance(message, _Put):
            if message.count != len(bodies):
                raise ProtocolError("count is not the number of bodies")
            self._put(message, run, [body.bytes for body in bodies])
        elif isinstance(message, _Alive):
            run.streams = frozenset(message.streams)
            self._confirm(message.run, run.committed)
        else:
            self._bye(message.run)

    def _may_hand_over(self, key: bytes | None) -> bool:
        access = None if self._keys is None else self._keys.allowed.access(key or b"")
        return self._keys is None or (access is not None and access.role == "publish")

    def _run_of(self, name: str, route: bytes) -> _Run:
        run = self._runs.get(name)
        if run is None:
            if len(self._runs) >= _MOST_RUNS:
                raise ProtocolError("too many runs")
            n = self._store.run_number(name)
            run = self._runs[name] = _Run(route, n, n, 0.0)
        run.route, run.heard = route, time.monotonic()
        return run

    def _put(self, message: _Put, run: _Run, bodies: Sequence[bytes]) -> None:
        known = run.accepted + 1 - message.n
        if known < 0 or known >= message.count:  # a number too high, or all of them are here
            self._confirm(message.run, run.committed)
            return
        records: list[Record] = []
        refused: list[tuple[int, ProtocolError]] = []
        for n, body in enumerate(bodies[known:], message.n + known):
            try:
                records.append(Record.from_body(body, message.run))
            except ProtocolError as error:
                refused.append((n, error))
        name, last = message.run, message.n + message.count - 1

        def done() -> None:
            self._settled.append((name, last))
            self._wake.set()

        if not self._give(Given(records, {name: last}, done), _WAIT_FOR_ROOM):
            return
        run.accepted = last
        for n, reason in refused:
            why = {"code": "bad_request", "message": str(reason)}
            self._send(run.route, {"op": "refused", "run": name, "n": n, "error": why})

    def _bye(self, name: str) -> None:
        """The run is over once all that it has handed over is committed."""
        last = self._runs[name].accepted

        def done() -> None:
            self._store.end_run(name)
            self._over.append((name, last))
            self._wake.set()

        self._give(Given((), done=done), None)

    def _confirm(self, name: str, n: int) -> None:
        run = self._runs.get(name)
        if run is not None:
            run.committed = max(run.committed, n)
            self._send(run.route, {"op": "stored", "run": name, "n": run.committed})

    def _send(self, route: bytes | None, members: dict[str, Any]) -> None:
        if route is not None:
            self._socket.send_multipart([route, dumps({"v": VERSION, **members})])

    def _pass_on(self, command: Command, done: _Done) -> None:
        """Hand a command to the runs that it is for."""
        try:
            names = self._targets(command)
        except RequestError as error:
            done(error)
            return
        order = _Order(done, time.monotonic() + _COMMAND_SECONDS, set())
        for name in names:
            id = str(next(self._numbers))
            order.waiting.add(id)
            self._orders[id] = order
            members = {"op": command.op, **command.members}
            self._send(self._runs[name].route, {"op": "command", "id": id, "command": members})

    def _targets(self, command: Command) -> list[str]:
        present = [name for name, run in self._runs.items() if run.route is not None]
        if not present:
            raise RequestError("unavailable", "no pipeline is connected to this bus")
        stream, run = command.members.get("stream"), command.members.get("run")
        if command.op == "stream.add":
            if run is None and len(present) > 1:
                raise RequestError("bad_request", "several pipelines are connected: name one by run, see streams")
            if run is not None and run not in present:
                raise RequestError("unavailable", "no pipeline of this run is connected")
            return present if run is None else [run]
        having = [name for name in present if stream is None or stream in self._runs[name].streams]
        if not having:
            raise RequestError("unknown_stream", f"no connected pipeline has a stream {stream!r}")
        return having

    def _obeyed(self, message: _Obeyed) -> None:
        order = self._orders.pop(message.id, None)
        if order is None:
            return
        order.waiting.discard(message.id)
        if message.ok:
            order.accepted += 1
            order.members.update(message.model_dump(include={"stream", "ask"}, exclude_none=True))
        elif message.error is not None:
            order.error = RequestError(message.error.code, message.error.message)
        if not order.waiting:
            self._finish(order)

    def _finish(self, order: _Order) -> None:
        for id in order.waiting:
            self._orders.pop(id, None)
        if order.accepted:
            order.done({"accepted": order.accepted, **order.members})
        else:
            order.done(order.error or RequestError("unavailable", "no pipeline has answered"))

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        while late := next((order for order in self._orders.values() if now >= order.until), None):
            self._finish(late)
        for name, run in list(self._runs.items()):
            if now - run.heard >= self._dead_run:
                self._lost(name)

    def _lost(self, name: str) -> None:
        del self._runs[name]
        message = f"the pipeline of run {name} has not been heard for {self._dead_run:g} s; its events end here."
        alarm = self._alarms.tell("run_lost", message)

        def done() -> None:
            self._store.end_run(name)

        self._give(Given((alarm,), done=done), None)
        self._notice(message)
