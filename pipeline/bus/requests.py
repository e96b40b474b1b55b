"""What the bus answers: requests as bytes in, replies as frames out (sections 5 and 6 of the protocol)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from .members import Members, Name
from .protocol import PAGE_BYTES, PAGE_EVENTS, VERSION, ProtocolError, dumps, loads
from .record import Stored
from .store_read import StoreReader

__all__ = [
    "COMMANDS",
    "Answer",
    "Command",
    "RequestError",
    "TakeCommand",
    "answer",
    "check",
    "head",
    "read_command",
    "refusal",
    "reply",
]

_LONGEST_ID = 64
_SEQ = Annotated[int, Field(ge=0, lt=1 << 53)]
_TIME = Annotated[float, Field(strict=False, allow_inf_nan=False)]
_NAMES = Annotated[list[Name], Field(max_length=256)]
_WORDS = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
_LIMIT = Annotated[int, Field(ge=1, le=PAGE_EVENTS)]
_PART = Annotated[float, Field(strict=False, ge=0, le=1)]


class RequestError(Exception):
    """A request is refused."""

    def __init__(self, code: str, message: str) -> None:
        """Say why: a code of the protocol, and words for people."""
        super().__init__(message)
        self.code, self.message = code, message


class Answer(NamedTuple):
    """What a reply says beside its frame of words."""

    members: dict[str, Any]
    stored: Sequence[Stored] | None = None
    """Events that follow; None where the operation gives none."""


class Command(NamedTuple):
    """A command for the pipelines (section 6 of the protocol), checked."""

    op: str
    members: dict[str, Any]
    """Those that were given."""


TakeCommand = Callable[[Command, Callable[[dict[str, Any] | RequestError], None]], None]
"""Takes a command, must not block, and calls back once, from any thread, with members of the reply or a refusal."""


class _Hello(Members):
    pass


class _AfterSeq(Members):
    seq: _SEQ
    epoch: Annotated[str, Field(max_length=64)] | None = None


class _AfterTime(Members):
    time: _TIME


class _Oldest(Members):
    oldest: Literal[True]


class _Replay(Members):
    after: _AfterSeq | _AfterTime | _Oldest
    until: _SEQ | None = None
    streams: _NAMES = []
    kinds: _NAMES = []
    limit: _LIMIT = PAGE_EVENTS


class _Snapshot(Members):
    streams: _NAMES = []
    kinds: _NAMES = []
    after: _SEQ = 0
    limit: _LIMIT = PAGE_EVENTS


class _Streams(Members):
    pass


class _Search(Members):
    text: _WORDS
    since: _TIME | None = None
    until: _TIME | None = None
    streams: _NAMES = []
    kinds: _NAMES = []
    limit: _LIMIT = 50


class _Query(Members):
    text: _WORDS
    stream: Name | None = None


class _AddStream(Members):
    source: Annotated[str, Field(min_length=1, max_length=2000)]
    stream: Name | None = None
    run: Name | None = None


class _RemoveStream(Members):
    stream: Name


class _Ask(Members):
    stream: Name
    box: Annotated[list[_PART], Field(min_length=4, max_length=4)] | None = None

    @model_validator(mode="after")
    def _check(self) -> _Ask:
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError("box is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        return self


_QUESTIONS: dict[str, type[Members]] = {
    "hello": _Hello,
    "replay": _Replay,
    "snapshot": _Snapshot,
    "streams": _Streams,
    "search": _Search,
}
COMMANDS: Mapping[str, type[BaseModel]] = {
    "query.add": _Query,
    "query.remove": _Query,
    "stream.add": _AddStream,
    "stream.remove": _RemoveStream,
    "ask": _Ask,
}


def head(frame: bytes) -> tuple[str, str, dict[str, Any]]:
    """The id, the operation and all members of a request.

    Raises:
        ProtocolError: it cannot even be refused: it is no JSON object, or has no id that a reply could carry.
    """
    members = loads(frame)
    given, op = members.get("id"), members.get("op")
    if not isinstance(given, str) or len(given) > _LONGEST_ID or not given.isprintable():
        raise ProtocolError("a request has no id")
    return given, op if isinstance(op, str) and op.isprintable() else "", members


def check(op: str, members: Mapping[str, Any]) -> Any:
    """The members of a request as the model of its operation.

    Raises:
        RequestError: something about it is wrong.
    """
    if members.get("v") != VERSION:
        raise RequestError("version", f"this bus speaks version {VERSION} of the protocol")
    model = _QUESTIONS.get(op) or COMMANDS.get(op)
    if model is None:
        raise RequestError("unknown_op", f"op is one of {', '.join([*_QUESTIONS, *COMMANDS])}")
    try:
        return model.model_validate(members)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["loc"][:1] == ("after",) and op == "replay":
            told = 'after is {"seq": NUMBER}, with "epoch" where you know it, {"time": SECONDS} or {"oldest": true}'
        else:
            told = f"{'.'.join(map(str, first['loc'])) or op}: {first['msg']}"
        raise RequestError("bad_request", told) from None


def read_command(members: Mapping[str, Any]) -> Command:
    """A command that a bus passes on, checked like those of clients.

    Raises:
        RequestError: something about it is wrong.
    """
    op = str(members.get("op"))
    if op not in COMMANDS:
        raise RequestError("unknown_op", f"a command is one of {', '.join(COMMANDS)}")
    return Command(op, check(op, {**members, "v": VERSION}).model_dump(exclude_none=True))


def answer(op: str, members: Any, reader: StoreReader, epoch: str) -> Answer:
    """Answer a question about events; ``members`` is what ``check`` gave.

    Raises:
        StoreError: the store cannot be read.
    """
    match op:
        case "replay":
            return _replay(members, reader, epoch)
        case "snapshot":
            found = reader.open_events(
                after=members.after, streams=members.streams, kinds=members.kinds, limit=members.limit
            )
            return Answer({"seq": found.seq, "epoch": epoch, "more": found.more}, found.stored)
        case "streams":
            return Answer({"streams": [stream._asdict() for stream in reader.streams()]})
        case "search":
            return Answer({}, _within_page(reader.search(**dict(members))))
    raise RequestError("unknown_op", "no question about events")


def reply(id: str, op: str, answer: Answer) -> list[bytes]:
    """The frames of a reply."""
    members = {"v": VERSION, "id": id, "op": op, "ok": True, **answer.members}
    if answer.stored is not None:
        members["count"] = len(answer.stored)
    frames = [dumps(members)]
    for stored in answer.stored or ():
        frames += (stored.header.to_bytes(), stored.body)
    return frames


def refusal(id: str, op: str, error: RequestError) -> list[bytes]:
    """The frame of a reply that refuses."""
    told = {"code": error.code, "message": error.message}
    return [dumps({"v": VERSION, "id": id, "op": op, "ok": False, "error": told})]


def _replay(asked: _Replay, reader: StoreReader, epoch: str) -> Answer:
    position = reader.position(asked.after.model_dump())
    page = reader.page(position.seq, until=asked.until, streams=asked.streams, kinds=asked.kinds, limit=asked.limit)
    lost = None if position.lost is None else {"first": position.lost[0], "last": position.lost[1]}
    told = {"upto": page.upto, "last": page.last, "epoch": epoch, "reset": position.reset, "lost": lost}
    return Answer(told, page.stored)


def _within_page(found: Sequence[Stored]) -> list[Stored]:
    """The first of them, as many as a page may hold in bytes."""
    sizes = accumulate(len(one.body) for one in found)
    return [one for one, size in zip(found, sizes, strict=True) if size <= PAGE_BYTES]
