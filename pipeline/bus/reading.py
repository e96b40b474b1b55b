"""Events as subscribers read them: with kinds and members that this version does not know yet."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationError

from onlooker.operators.events import Event, EventData, TrackData, parse_event

from .protocol import ProtocolError

__all__ = ["UnknownEvent", "read_event", "words"]

_WORDS = ("text", "query", "message")


class UnknownData(EventData):
    """What an event of an unknown kind says: what all events say, and whatever else came."""

    model_config = ConfigDict(frozen=True, extra="allow")


class UnknownEvent(Event):
    """An event of a later version; ``type`` says of which kind, ``data`` has all its members."""

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: ClassVar[str] = "unknown"
    datacontenttype: Any = "application/json"
    specversion: Any = "1.0"
    data: UnknownData


def read_event(body: bytes) -> Event:
    """Read an event from the wire. Members that are new here are left out; an unknown kind gives an `UnknownEvent`.

    Raises:
        ProtocolError: it is no event of any version.
    """
    try:
        return parse_event(body)
    except ValidationError:
        pass
    try:
        return UnknownEvent.model_validate_json(body)
    except ValidationError as error:
        about = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, about["loc"])) or "the body"
        raise ProtocolError(f"no event: {where}: {about['msg']}") from None


def words(event: Event) -> str:
    """What it says in words; empty where it says nothing."""
    if isinstance(event.data, TrackData):
        return event.data.words
    return next((str(said) for name in _WORDS if (said := getattr(event.data, name, None))), "")
