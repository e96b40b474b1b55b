"""Events as the bus handles them: bytes, and the few things that it has to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from onlooker.operators.events import Event, Phase, track_words

from .members import Name
from .protocol import BODY_BYTES, Header, ProtocolError, topic

__all__ = ["Record", "Stored"]

# The member of `data` that holds words to search in, by kind.
_WORDS = {"caption": "text", "query": "query", "stream": "message", "alarm": "message"}


@dataclass(frozen=True, slots=True)
class Record:
    """One revision of an event before it has a number."""

    run: str
    stream: str
    kind: str
    phase: Phase
    event_id: str
    """The same for all revisions; unique within the run."""
    rev: int
    text: str | None
    """What it says in words, for search."""
    status: str | None
    """Of `stream` events."""
    body: bytes
    """The CloudEvents object as UTF-8 JSON."""

    @classmethod
    def from_event(cls, event: Event, run: str) -> Record:
        """The record of an event of this process."""
        return cls._of(run, event.kind, event.data, event.to_json().encode())

    @classmethod
    def from_body(cls, body: bytes, run: str) -> Record:
        """The record of what somebody sent. Kinds of later versions pass: only what the bus has to know is looked at.

        Raises:
            ProtocolError: it is too large, or no event.
        """
        if len(body) > BODY_BYTES:
            raise ProtocolError(f"an event of {len(body)} bytes; {BODY_BYTES} are allowed")
        try:
            event = _Envelope.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise ProtocolError(f"no event: {where}: {first['msg']}") from None
        kind, data = event.type.split(".")[1], event.data
        if event.id != f"{data.event_id}/{data.rev}" or not data.event_id.startswith(f"{data.stream}/"):
            raise ProtocolError("no event: id is not <stream>/<media_epoch>/<kind>/<event_no>/<rev>")
        return cls._of(run, kind, data, body)

    @classmethod
    def _of(cls, run: str, kind: str, data: Any, body: bytes) -> Record:
        words, status = getattr(data, _WORDS.get(kind, "text"), None), getattr(data, "status", None)
        if kind == "track":  # an object is found by its name and by its caption
            words = track_words(getattr(data, "name", None), data.text) or None
        return cls(run, data.stream, kind, data.phase, data.event_id, data.rev, words, status, body)


class Stored(NamedTuple):
    """An event as subscribers get it, live or replayed."""

    stream: str
    kind: str
    header: Header
    body: bytes

    @property
    def seq(self) -> int:
        """Its number in the store; only of events that are in it."""
        assert self.header.seq is not None, "an event that was never stored has no number"
        return self.header.seq

    def frames(self) -> list[bytes]:
        """Topic, header, body."""
        return [topic(self.stream, self.kind), self.header.to_bytes(), self.body]


class _Data(BaseModel):
    stream: Name
    event_id: Annotated[str, Field(max_length=200)]
    rev: Annotated[int, Field(ge=0)]
    phase: Phase
    text: str | None = None
    name: Any = None
    query: str | None = None
    message: str | None = None
    status: str | None = None


class _Envelope(BaseModel):
    id: str
    type: Annotated[str, Field(pattern=r"^onlooker\.[a-z_]{1,30}\.v[0-9]+$")]
    data: _Data
