"""What both subscribers, the plain and the asynchronous one, are made of; it never waits."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import zmq

from onlooker.operators.events import STREAM_NAME, Event, Phase

from ..errors import UsageError
from .dial import BusBroken, BusUnreachable, Line, client_keys
from .inbox import Gap, Inbox, Position
from .keys import ClientKeys
from .protocol import DEFAULT_ADDRESS, EVERYTHING, HEARTBEAT, HEARTBEAT_SECONDS, Addresses, ProtocolError, stream_topic
from .reading import read_event, words
from .record import Stored
from .since import Since, start

__all__ = ["MissedEvents", "Receiver", "State"]

State = Literal["waiting", "connected"]

_ANSWER = 5.0  # seconds until a question is asked again; twice that the next time
_LONGEST_ANSWER = 40.0
_NOT_SENT = 0.5  # seconds until it is tried again to send a question that nobody took
_LOOK_EVERY = 0.5  # seconds that one may wait at most
_SILENT = 3  # heartbeats that fail to come until a bus counts as gone
_BATCH = 256  # messages taken at a time
_RECENT = 4096  # events whose ids are remembered


class MissedEvents(UserWarning):
    """Events are missing that the subscriber should have had; see `Gap`."""


class Receiver:
    """Connection to a bus, the choice of events, and the position. For one thread or task."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        stream: str | Sequence[str] | None = None,
        kinds: str | Sequence[str] | None = None,
        phase: Phase | None = None,
        text: str | None = None,
        since: Since = None,
        position: str | None = None,
        keys: str | Path | ClientKeys | None = None,
        server_key: str | Path | None = None,
        timeout: float | None = None,
        on_gap: Callable[[Gap], None] | None = None,
        on_state: Callable[[State], None] | None = None,
    ) -> None:
        """Begin to connect; nothing waits here.

        Args:
            address: of the bus, ``tcp://HOST:PORT`` or ``ipc://PATH``.
            stream: a stream, or several; None for all.
            kinds: ``"caption"``, ``"query"``, ``"track"``, ``"stream"``, ``"alarm"``, or several; None for all.
            phase: ``"end"`` for settled facts only; None for all phases.
            text: only events in whose words all of these occur, in any case of letters.
            since: begin there instead of with what is new: ``"10m"``, ``"2h"``, ``"1d"`` ago, a datetime or timedelta,
                the number of an event (what follows it comes), ``"all"``.
            position: go on where a subscriber was whose ``position`` this is; goes before ``since``.
            keys: for a bus with keys: the file ``NAME.key_secret``.
            server_key: for a bus with keys: the file ``SERVER.key``.
            timeout: seconds without a bus after which to give up; None to wait for ever.
            on_gap: called with what is missing for good; by default a `MissedEvents` warning tells it.
            on_state: called with ``"waiting"`` when the bus is out of reach, ``"connected"`` when it is back.

        Raises:
            UsageError: an argument makes no sense.
            KeysError: a key cannot be used.
        """
        addresses = Addresses.of(address)
        if phase not in (None, *get_args(Phase)):
            raise UsageError(f"no phase: {phase!r}; there are {', '.join(get_args(Phase))}.")
        streams, wanted = _several(stream, "stream"), _several(kinds, "kind")
        one = streams[0] if len(streams) == 1 else None
        self.address = address
        self.last: Stored | None = None
        """The event given last as it came, with its header."""
        self._inbox = Inbox(_begin(position, since), one=one, streams=streams, kinds=wanted)
        self._phase, self._text = phase, (text or "").casefold().split()
        self._timeout = timeout
        self._on_gap = on_gap or _warn
        self._on_state = on_state or (lambda state: None)
        self._recent: dict[tuple[str, str], None] = {}
        self._state: State | None = None
        self._heard = self._left = time.monotonic()
        self._sent, self._again_at, self._patience = "", 0.0, _ANSWER
        self._more = False
        used = client_keys(keys, server_key)
        self._lines: list[Line] = []
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            for kind, where in ((zmq.SUB, addresses.events), (zmq.DEALER, addresses.requests)):
                self._lines.append(Line(self._context, kind, where, used, bus=address))
        except BaseException:
            self._shut()
            raise
        self._events, self._requests = self._lines
        for topic in (stream_topic(one), HEARTBEAT) if one else (EVERYTHING,):
            self._events.socket.subscribe(topic)

    @property
    def position(self) -> str | None:
        """Where it stands, to be given as ``position`` to another one: everything up to the event given last is behind.

        None until the bus has answered.
        """
        for event in self._inbox.ready:
            if event.header.seq is not None:
                return str(Position(event.header.seq - 1, event.header.epoch))
        return None if self._inbox.position is None else str(self._inbox.position)

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._context.closed

    def _shut(self) -> None:
        for line in self._lines:
            line.close()
        self._context.term()

    def _enter(self) -> None:
        """Somebody begins to wait for an event. While nobody did, nobody heard the bus either."""
        if self.closed:
            raise UsageError("this subscription is closed; make another one with its position.")
        self._heard += time.monotonic() - self._left

    def _take(self) -> Event | None:
        """The next event that is at hand.

        Raises:
            OnlookerError: the bus refuses the key, speaks another version, or has been away for ``timeout``.
        """
        if not self._inbox.ready:
            try:
                self._pump()
            except ProtocolError as error:
                raise BusBroken(self.address, error) from None
            self._tell()
        self._left = time.monotonic()
        while self._inbox.ready:
            stored = self._inbox.ready.popleft()
            event = self._chosen(stored)
            if event is not None:
                self.last = stored
                return event
        return None

    def _pause(self, until: float | None) -> float | None:
        """Seconds to wait for the sockets before `_take` is called again; None where ``until`` is over."""
        seconds = 0.0 if self._more else _LOOK_EVERY
        if until is None:
            return seconds
        left = until - time.monotonic()
        return min(seconds, left) if left > 0 else None

    def _pump(self) -> None:
        """Let all sockets have their turn, until they have nothing more or a batch has come.

        Requests are sent before answers are read: sending may swallow the signal that something has come.
        """
        self._look()
        self._ask()
        while (frames := self._requests.receive()) is not None:
            self._heard = time.monotonic()
            self._inbox.reply(frames)
            self._ask()
        self._more = False
        for _ in range(_BATCH):
            if (frames := self._events.receive()) is None:
                break
            self._heard = time.monotonic()
            self._inbox.live(frames)
        else:
            self._more = True
        question = self._inbox.question()
        self._more = self._more or bool(self._inbox.ready) or (question is not None and question.id != self._sent)

    def _look(self) -> None:
        if self._events.look() == "connected":
            self._inbox.connected()
        if self._requests.look() == "connected":
            self._sent = ""  # a question that went to the connection before is answered by nobody

    def _ask(self) -> None:
        question = self._inbox.question()
        now = time.monotonic()
        if question is None or (question.id == self._sent and now < self._again_at):
            return
        self._patience = _ANSWER if question.id != self._sent else min(2 * self._patience, _LONGEST_ANSWER)
        self._again_at = now + (self._patience if self._requests.send(question.frame) else _NOT_SENT)
        self._sent = question.id

    def _tell(self) -> None:
        """Tell of gaps, and of a bus that is gone or back."""
        while self._inbox.gaps:
            self._on_gap(self._inbox.gaps.popleft())
        beat = (self._inbox.greeting or {}).get("heartbeat", HEARTBEAT_SECONDS)
        silent = time.monotonic() - self._heard
        away = silent >= _SILENT * beat or self._inbox.put_off
        if away != (self._state == "waiting"):
            self._state = "waiting" if away else "connected"
            self._on_state(self._state)
        if self._timeout is not None and silent >= self._timeout:
            raise BusUnreachable(
                f"no bus has answered at {self.address} for {self._timeout:g} s; does it run, and is the address right?"
            )

    def _chosen(self, stored: Stored) -> Event | None:
        """The event, if it is wanted and has not been given before."""
        try:
            event = read_event(stored.body)
        except ProtocolError as error:
            seq = stored.header.seq or 0
            self._on_gap(Gap("unreadable", seq, seq, str(error)))
            return None
        key = (stored.header.run, event.id)
        if key in self._recent or (self._phase is not None and event.phase != self._phase):
            return None
        if self._text:
            said = words(event).casefold()
            if not all(word in said for word in self._text):
                return None
        self._recent[key] = None
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        return event


def _several(names: str | Sequence[str] | None, what: str) -> tuple[str, ...]:
    found = () if names is None else (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    for name in found:
        if not re.fullmatch(STREAM_NAME, name):
            raise UsageError(f"no name of a {what}: {name!r}; it is made of letters, digits, '.', '_' and '-'.")
    return found


def _begin(position: str | None, since: Since) -> Any:
    if position is None:
        return start(since)
    try:
        return Position.parse(position)
    except ValueError:
        raise UsageError(f"{position!r} is no position; give what `position` of a subscription was.") from None


def _warn(gap: Gap) -> None:
    warnings.warn(str(gap), MissedEvents, stacklevel=6)
