"""What a subscriber has and lacks: section 4 of docs/PROTOCOL.md as a state machine without sockets or clocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ..errors import OnlookerError
from .protocol import HEARTBEAT, HIGH_WATER, PAGE_BYTES, VERSION, Header, ProtocolError, dumps, loads
from .record import Stored

__all__ = ["BusRefusal", "Gap", "Inbox", "Position", "Question", "read_events", "read_reply"]

_SILENCE = 30.0  # seconds between two heartbeats, by the bus's clock, after which one stream's numbers may be missing
_PASSING = ("busy", "unavailable")  # errors that are over after a while


class BusRefusal(OnlookerError):
    """The bus answers a request with an error."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the protocol's code of the error beside the bus's words."""
        super().__init__(f"the bus refuses: {message}")
        self.code = code


class Position(NamedTuple):
    """A place in the log of a bus; all events up to ``seq`` are behind it."""

    seq: int
    epoch: str | None

    def __str__(self) -> str:
        """Return it as a token that can be kept: ``<epoch>/<seq>``."""
        return f"{self.epoch or ''}/{self.seq}"

    @classmethod
    def parse(cls, token: str) -> Position:
        """Read a token.

        Raises:
            ValueError: it is none.
        """
        epoch, slash, seq = token.rpartition("/")
        if not slash or not seq.isascii() or not seq.isdigit():
            raise ValueError(f"no position: {token!r}")
        return cls(int(seq), epoch or None)


class Gap(NamedTuple):
    """Events that could not be had."""

    why: Literal["lost", "reset", "unreadable"]
    """lost: deleted before they were fetched. reset: the position is of another log. unreadable: no events at all."""
    first: int
    last: int
    detail: str = ""

    def __str__(self) -> str:
        """Say it to a person."""
        if self.why == "lost":
            return f"events {self.first} to {self.last} are lost: the bus had deleted them before they were fetched"
        if self.why == "unreadable":
            return f"event {self.first} is passed over: {self.detail}"
        return (
            f"the bus does not know position {self.last}: its store is another one or lost its end; "
            "events may be missing, reading goes on with the first that is new"
        )


class Question(NamedTuple):
    """A request to the bus; the same until it is answered."""

    id: str
    frame: bytes


class Inbox:
    """Takes what the sockets bring, in any order and with losses, and gives the bus's log: all of it, once, in order.

    ``ready`` holds the events that come next, ``gaps`` what cannot be had; the owner empties both. What ``question``
    gives is to be sent when it is new, and again as long as it stands. Events that came too early are held, at most
    ``hold`` of them and ``PAGE_BYTES``: what comes beyond is dropped and replayed.
    """

    def __init__(
        self,
        start: Position | Mapping[str, Any] | None,
        *,
        one: str | None = None,
        streams: Sequence[str] = (),
        kinds: Sequence[str] = (),
        hold: int = HIGH_WATER,
    ) -> None:
        """Begin.

        Args:
            start: a position, the protocol's ``{"time": ...}`` or ``{"oldest": True}``, or None for what is new.
            one: the stream whose topics alone are subscribed; None where all are.
            streams: streams that are wanted, empty for all; others are left out of ``ready``.
            kinds: the same for kinds.
            hold: events that may be held.
        """
        self.ready: deque[Stored] = deque()
        self.gaps: deque[Gap] = deque()
        self.greeting: dict[str, Any] | None = None
        self.put_off = False
        """Whether the bus has answered that it cannot answer now."""
        self._position = start if isinstance(start, Position) else None
        self._from = None if isinstance(start, Position) else start
        self._one = one
        self._streams = frozenset(streams or ([one] if one else []))
        self._kinds = frozenset(kinds)
        self._unsure = start is not None  # whether a replay has to tell what the position counts
        self._held: deque[Stored] = deque()
        self._held_bytes, self._hold = 0, hold
        self._target = 0  # highest number that was heard of in epoch _heard
        self._heard = ""
        self._beat: float | None = None
        self._question: Question | None = None
        self._after = 0
        self._until: int | None = None
        self._asked = 0

    @property
    def position(self) -> Position | None:
        """Up to where ``ready`` and what was taken from it reach; None until the bus has told."""
        return self._position

    def question(self) -> Question | None:
        """The request that waits for its answer, if there is something to ask."""
        if self._question is None:
            if self.greeting is None:
                self._ask("hello", {})
            elif self._unsure or self._missing:
                self._ask("replay", self._replay())
        return self._question

    def connected(self) -> None:
        """The connection is new: something may have been missed."""
        self._unsure = self._unsure or self._position is not None

    def live(self, frames: Sequence[bytes]) -> None:
        """Take a message of the SUB socket.

        Raises:
            ProtocolError: it is none of this protocol.
        """
        if frames and frames[0] == HEARTBEAT:
            self._heartbeat(frames)
            return
        event = _event(frames)
        header = event.header
        if header.seq is None:
            self._give(event)
            return
        self._hear(header.epoch, header.seq)
        if self._held or not self._next(event):
            self._hold_back(event)
        else:
            self._take(event)

    def reply(self, frames: Sequence[bytes]) -> None:
        """Take a message of the DEALER socket; an answer to another question than the one that waits is passed over.

        Raises:
            BusRefusal: the bus says that it cannot answer, ever.
            ProtocolError: it is none of this protocol.
        """
        members = loads(frames[0]) if frames else {}
        if self._question is None or members.get("id") != self._question.id:
            return
        try:
            read_reply(members)
        except BusRefusal as error:
            self.put_off = error.code in _PASSING
            if self.put_off:
                return
            raise
        self._question, self.put_off = None, False
        try:
            if self.greeting is None:
                self._greet(members)
            else:
                self._page(members, read_events(frames, members))
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"an answer of the bus is not whole: {error}") from None

    def _heartbeat(self, frames: Sequence[bytes]) -> None:
        try:
            head, streams = loads(frames[1]), loads(frames[2])["streams"]
            epoch, last, now = str(head["epoch"]), int(head["seq"]), float(head["time"])
            seq = int(streams.get(self._one, 0)) if self._one else last
        except (IndexError, KeyError, TypeError, ValueError, AttributeError):
            raise ProtocolError("a heartbeat is not whole") from None
        if self._one and self._beat is not None and now - self._beat > _SILENCE:
            self.connected()
        self._beat = now
        self._hear(epoch, seq)

    def _hear(self, epoch: str, seq: int) -> None:
        """Note how far a bus is. In another epoch than the last one the position may count no more."""
        if epoch != self._heard:
            self._heard, self._target = epoch, 0
            self._drop_held()
        self._target = max(self._target, seq)
        if self._position is not None and epoch != self._position.epoch:
            self._unsure = True

    def _next(self, event: Stored) -> bool:
        """Whether nothing that is wanted lies between the position and this event."""
        if self._unsure or self._position is None or event.header.seq is None:
            return False
        return event.header.prev <= self._position.seq if self._one else event.header.seq <= self._position.seq + 1

    def _take(self, event: Stored) -> None:
        """Give it, unless it is behind the position, and move on."""
        assert self._position is not None and event.header.seq is not None
        if event.header.seq > self._position.seq:
            self._give(event)
            self._position = self._position._replace(seq=event.header.seq)

    def _give(self, event: Stored) -> None:
        if (not self._streams or event.stream in self._streams) and (not self._kinds or event.kind in self._kinds):
            self.ready.append(event)

    def _hold_back(self, event: Stored) -> None:
        size = len(event.body)
        if len(self._held) < self._hold and self._held_bytes + size <= PAGE_BYTES:
            self._held.append(event)
            self._held_bytes += size

    def _drop_held(self) -> None:
        self._held.clear()
        self._held_bytes = 0

    def _settle(self) -> None:
        """Take what was held, as far as it follows."""
        while self._held and self._next(self._held[0]):
            event = self._held.popleft()
            self._held_bytes -= len(event.body)
            self._take(event)

    @property
    def _missing(self) -> bool:
        return self._position is not None and (bool(self._held) or self._position.seq < self._target)

    def _greet(self, hello: Mapping[str, Any]) -> None:
        if int(hello["protocol"]) != VERSION:
            raise BusRefusal("version", f"it speaks version {hello['protocol']}, this onlooker {VERSION}")
        epoch, seq = str(hello["epoch"]), int(hello["seq"])
        self.greeting = dict(hello)
        if self._position is None and self._from is None:
            self._position = Position(seq, epoch)
            if self._heard and self._heard != epoch:
                self._unsure = True
            self._settle()

    def _replay(self) -> dict[str, Any]:
        """Members of the replay that is due: up to the first event held, or all there is."""
        members: dict[str, Any] = {"streams": sorted(self._streams), "kinds": sorted(self._kinds)}
        if self._position is None:
            members["after"] = dict(self._from or {})
            return members
        seq, epoch = self._position
        members["after"] = {"seq": seq} if epoch is None else {"seq": seq, "epoch": epoch}
        if self._held and not self._unsure:
            assert (first := self._held[0].header.seq) is not None
            members["until"] = first - 1
        return members

    def _ask(self, op: str, members: Mapping[str, Any]) -> None:
        self._asked += 1
        self._after = self._position.seq if self._position else 0
        self._until = members.get("until")
        self._question = Question(str(self._asked), dumps({"v": VERSION, "id": str(self._asked), "op": op, **members}))

    def _page(self, members: Mapping[str, Any], events: list[Stored]) -> None:
        upto, last, epoch = int(members["upto"]), int(members["last"]), str(members["epoch"])
        before = self._position.seq if self._position else 0
        if members["reset"]:
            self.gaps.append(Gap("reset", 0, before))
            before = 0
        if lost := members["lost"]:
            self.gaps.append(Gap("lost", int(lost["first"]), int(lost["last"])))
        for event in events:
            if event.header.seq is not None and event.header.seq > before:
                self._give(event)
        wanted = last if self._until is None else min(self._until, last)
        if upto <= self._after < wanted and not members["reset"]:
            raise ProtocolError(f"the bus gives nothing after {self._after}, though it says that it has {wanted}")
        self._position = Position(max(upto, before), epoch)
        self._from, self._unsure = None, False
        # Held may be words of a bus that is no more, or of one that has started since and will make itself heard again.
        # And what the bus says it has, it has: numbers beyond it would be asked for without end.
        if self._heard != epoch or (self._until is not None and last < self._until):
            self._heard, self._target = epoch, last
            self._drop_held()
        self._target = last if self._until is None else max(self._target, last)
        self._settle()


def read_reply(members: Mapping[str, Any]) -> None:
    """Check the first frame of a reply.

    Raises:
        BusRefusal: it tells an error, or is of another version of the protocol.
        ProtocolError: it is no reply.
    """
    error = members.get("error")
    if members.get("ok") is False and isinstance(error, Mapping):
        raise BusRefusal(str(error.get("code")), str(error.get("message")))
    if members.get("v") != VERSION:
        raise BusRefusal("version", f"it speaks version {members.get('v')!r}, this onlooker {VERSION}")
    if members.get("ok") is not True:
        raise ProtocolError("an answer of the bus is not whole")


def read_events(frames: Sequence[bytes], members: Mapping[str, Any]) -> list[Stored]:
    """The events that follow the first frame of a reply, two frames each.

    Raises:
        ProtocolError: there are fewer or more than it counts, or they are none.
    """
    if len(frames) != 1 + 2 * members["count"]:
        raise ProtocolError(f"a reply of {len(frames)} frames counts {members['count']} events")
    return [_replayed(header, body) for header, body in zip(frames[1::2], frames[2::2], strict=True)]


def _event(frames: Sequence[bytes]) -> Stored:
    if len(frames) < 3:
        raise ProtocolError("an event of fewer than three frames")
    parts = frames[0].split(b"/")
    if len(parts) != 4 or not frames[0].isascii():
        raise ProtocolError("an event has no topic of this protocol")
    return Stored(parts[1].decode(), parts[2].decode(), Header.from_bytes(frames[1]), frames[2])


def _replayed(header: bytes, body: bytes) -> Stored:
    """Replies carry no topics: stream and kind stand in the event itself."""
    members = loads(body)
    try:
        stream, kind = members["data"]["stream"], members["type"].split(".")[1]
    except (KeyError, TypeError, IndexError, AttributeError):
        raise ProtocolError("an event of a reply tells neither stream nor kind") from None
    return Stored(str(stream), str(kind), Header.from_bytes(header), body)
