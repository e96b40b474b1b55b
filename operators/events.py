"""The event schema: CloudEvents 1.0 whose ``data`` says what was seen, where in media time, and how sure.

An event lives through the phases ``new``, ``update`` and ``end`` under one stable ``event_id``; ``rev`` counts its
revisions. Consumers that want settled facts only keep ``end``. Everything that depends on the machine or the moment
(wall time, latency) stands in ``data.side``, which the canonical form of a log leaves out: two runs over the same file
give the same canonical log, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

__all__ = [
    "AlarmData",
    "AlarmEvent",
    "AnyEvent",
    "CaptionData",
    "CaptionEvent",
    "Event",
    "EventData",
    "Phase",
    "QueryData",
    "QueryEvent",
    "Side",
    "StreamData",
    "STREAM_NAME",
    "StreamEvent",
    "TrackData",
    "TrackEvent",
    "TrackPoint",
    "canonical_line",
    "make_event",
    "event_json_schema",
    "parse_event",
    "stream_name",
    "track_words",
]

Phase = Literal["new", "update", "end"]

# What only live streams, or runs with clips, have to say; left out of a line where it is null.
_LIVE_DATA = ("message", "retry_in", "new_epoch", "ask", "box")
_LIVE_SIDE = ("age_ms", "counters", "clip", "clip_start", "key_frame")

_MICROSECOND = 1e-6
"""To which times are rounded, seconds."""

STREAM_NAME = r"^[A-Za-z0-9._-]+$"
"""What names of streams are made of."""


def _seconds(value: float) -> float:
    """Times are rounded to the microsecond, so that every runner writes the same digits."""
    return round(value, 6) + 0.0


def _score(value: float) -> float:
    return round(value, 4) + 0.0


Seconds = Annotated[float, AfterValidator(_seconds)]
Score = Annotated[float, AfterValidator(_score)]


class _Model(BaseModel):
    # Later versions add members, and CloudEvents allows attributes of others' in the envelope: readers pass over them.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Side(_Model):
    """What may differ from run to run: clocks and speed."""

    wall: str | None = Field(
        default=None, description="Wall time of t_start, in live stream events of the news; RFC 3339 in UTC."
    )
    time_source: Literal["rtcp", "host", "file"] = Field(description="Where the wall time comes from.")
    clock_err_ms: float | None = Field(default=None, description="Bound on the error of the wall time, ms.")
    latency_ms: dict[str, float] = Field(default_factory=dict, description="Time spent in each stage, ms.")
    age_ms: float | None = Field(
        default=None, description="Live: from the arrival of the newest frame behind the event to the log, ms."
    )
    counters: dict[str, int] | None = Field(
        default=None, description="At the end of a live stream: frames_in = frames_processed + all frames_dropped_*."
    )
    clip: str | None = Field(default=None, description="Name of a video of the event, in the folder of clips.")
    clip_start: float | None = Field(
        default=None, description="Media time of the clip's first frame, seconds; a key frame before t_start."
    )
    key_frame: str | None = Field(default=None, description="Name of a picture of the event, in the same folder.")


class EventData(_Model):
    """What all kinds of events say."""

    stream: str = Field(pattern=STREAM_NAME, description="Name of the stream.")
    media_epoch: int = Field(description="0 for files; first wall time of the epoch in ms for live streams.")
    event_id: str = Field(description="<stream>/<media_epoch>/<kind>/<event_no>: stable over all phases.")
    rev: int = Field(ge=0, description="Revision, 0, 1, 2 ... over all phases of the event.")
    phase: Phase = Field(description="new: seen, still open. update: changed. end: settled.")
    t_start: Seconds = Field(description="Start in media time, seconds.")
    t_end: Seconds | None = Field(description="End in media time, seconds; null while the event is open.")
    t_seen: Seconds = Field(description="Media time up to which the stream had been seen, seconds.")
    score: Score | None = Field(default=None, description="How sure; comparable within one kind and model.")
    side: Side | None = Field(default=None, description="Clocks and speed; not part of the canonical log.")


class CaptionData(EventData):
    """A sentence about a span of the stream."""

    text: str = Field(description="The caption.")
    ask: str | None = Field(default=None, description="The question that the caption answers, if somebody asked.")
    box: tuple[Score, Score, Score, Score] | None = Field(
        default=None,
        description="The part of the picture that was asked about: x0, y0, x1, y1 from 0 to 1; null for all of it.",
    )


class QueryData(EventData):
    """Something the user asked for in words begins or ends."""

    query: str = Field(description="The query, as the user wrote it.")


class StreamData(EventData):
    """The stream itself: where it stands and why.

    A file is `started` and `ended`. A live stream has one event for as long as it is watched, with an update for each
    change; its times are seconds since watching began, its `media_epoch` is that moment.
    """

    status: Literal["started", "connecting", "live", "stalled", "reconnecting", "ended"]
    reason: str | None = Field(default=None, description="Why: complete, truncated, interrupted, wrong_password ...")
    message: str | None = Field(default=None, description="What is wrong and what to do, for people.")
    retry_in: float | None = Field(default=None, description="Seconds until the next attempt to connect.")
    new_epoch: int | None = Field(default=None, description="media_epoch of the other events from now on.")


def track_words(name: object, text: object) -> str:
    """Name and caption of an object as one line; what is no text is left out."""
    return ": ".join(said for said in (name, text) if isinstance(said, str) and said)


class TrackPoint(NamedTuple):
    """Where an object was at one instant."""

    t: Seconds
    """Media time, seconds."""
    x0: Score
    """Left side, as a part of the picture's width, from 0 to 1; so the others."""
    y0: Score
    x1: Score
    y1: Score


class TrackData(EventData):
    """An object is followed: it appears, moves, and is gone.

    The event number is the track's identity; `t_end` is when it was seen last. What is followed for a moment only may
    have an `end` alone.
    """

    text: str | None = Field(default=None, description="What the object is doing, as far as seen; a caption.")
    name: str | None = Field(default=None, description="What kind of thing it is, for detectors that know names.")
    boxes: tuple[TrackPoint, ...] = Field(
        description="Where it was, [t, x0, y0, x1, y1] from 0 to 1: in `new` and `update` since the revision before; "
        "in `end` all its way, thinned evenly where it was long, but for what is since the revision before."
    )

    @property
    def words(self) -> str:
        """What it says in words: ``dog: a dog runs``; empty where it says nothing yet."""
        return track_words(self.name, self.text)

    def points_after(self, latest: float | None) -> Sequence[TrackPoint]:
        """The points that this revision adds to those before.

        They may be older than others: who somebody is can turn out late. An ``end`` repeats the whole way, of which
        only what is later than ``latest``, the last point known (media time in seconds, None without any), is new.
        """
        if self.phase != "end" or latest is None:
            return self.boxes
        return [point for point in self.boxes if point.t > latest + _MICROSECOND]


class AlarmData(EventData):
    """Something is wrong with onlooker itself; it ends when all is well again.

    Alarms of the bus stand in the stream `bus`; their times are seconds since it began, their `media_epoch` is that
    moment.
    """

    code: str = Field(description="What: disk_full, run_lost ...")
    message: str = Field(description="What is wrong and what to do, for people.")


class Event(_Model):
    """CloudEvents 1.0 envelope; ``id`` is ``event_id`` plus ``/rev`` and unique within ``source``."""

    kind: ClassVar[str] = ""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: EventData

    @property
    def phase(self) -> Phase:
        """Phase of the event, ``new``, ``update`` or ``end``."""
        return self.data.phase

    @property
    def t_start(self) -> float:
        """Start in media time, seconds."""
        return self.data.t_start

    @property
    def t_end(self) -> float | None:
        """End in media time, seconds; None while the event is open."""
        return self.data.t_end

    @property
    def event_no(self) -> int:
        """Number of the event within its stream, epoch and kind."""
        return int(self.data.event_id.rsplit("/", 1)[1])

    @property
    def order(self) -> tuple[str, str, int, int]:
        """Sort key of events that became known at the same media time: stream, kind, event number, revision."""
        return (self.data.stream, self.kind, self.event_no, self.data.rev)

    def to_json(self, *, canonical: bool = False) -> str:
        """One line of JSON; ``canonical`` leaves out ``data.side``."""
        payload = self.model_dump(mode="json")
        data = payload["data"]
        if canonical or self.data.side is None:
            del data["side"]
        for holder, names in ((data, _LIVE_DATA), (data.get("side", {}), _LIVE_SIDE)):
            for name in names:
                if name in holder and holder[name] is None:
                    del holder[name]
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))

    def with_side(self, side: Side) -> Event:
        """The same event with clocks and speed added."""
        return self.model_copy(update={"data": self.data.model_copy(update={"side": side})})


class CaptionEvent(Event):
    """``onlooker.caption.v1``."""

    kind: ClassVar[str] = "caption"
    type: Literal["onlooker.caption.v1"] = "onlooker.caption.v1"
    data: CaptionData


class QueryEvent(Event):
    """``onlooker.query.v1``."""

    kind: ClassVar[str] = "query"
    type: Literal["onlooker.query.v1"] = "onlooker.query.v1"
    data: QueryData


class StreamEvent(Event):
    """``onlooker.stream.v1``."""

    kind: ClassVar[str] = "stream"
    type: Literal["onlooker.stream.v1"] = "onlooker.stream.v1"
    data: StreamData


class TrackEvent(Event):
    """``onlooker.track.v1``."""

    kind: ClassVar[str] = "track"
    type: Literal["onlooker.track.v1"] = "onlooker.track.v1"
    data: TrackData


class AlarmEvent(Event):
    """``onlooker.alarm.v1``."""

    kind: ClassVar[str] = "alarm"
    type: Literal["onlooker.alarm.v1"] = "onlooker.alarm.v1"
    data: AlarmData


_Known = CaptionEvent | QueryEvent | TrackEvent | StreamEvent | AlarmEvent
AnyEvent = Annotated[_Known, Field(discriminator="type")]
_ADAPTER: TypeAdapter[_Known] = TypeAdapter(AnyEvent)
_EVENT_TYPES: dict[str, type[_Known]] = {
    cls.kind: cls for cls in (CaptionEvent, QueryEvent, TrackEvent, StreamEvent, AlarmEvent)
}


def make_event(
    kind: str,
    *,
    stream: str,
    epoch: int,
    event_no: int,
    rev: int,
    phase: Phase,
    t_start: float,
    t_end: float | None,
    t_seen: float,
    score: float | None = None,
    **content: Any,
) -> Event:
    """Build an event of ``kind`` with its ids in the one right form.

    Args:
        kind: ``caption``, ``query``, ``track``, ``stream`` or ``alarm``.
        stream: name of the stream.
        epoch: media epoch.
        event_no: number of the event within stream, epoch and kind, from 0.
        rev: revision of the event, from 0.
        phase: ``new``, ``update`` or ``end``.
        t_start: start in media time, seconds.
        t_end: end in media time, seconds; None while open.
        t_seen: media time seen so far, seconds.
        score: how sure, if the kind has a score.
        content: the fields of the kind: ``text``, ``query``, ``status`` ...

    Raises:
        KeyError: the kind is unknown.
        TypeError: the kind has no such field.
        pydantic.ValidationError: a field does not fit the schema.
    """
    cls = _EVENT_TYPES[kind]
    unknown = set(content) - set(cls.model_fields["data"].annotation.model_fields)  # type: ignore[union-attr]
    if unknown:
        raise TypeError(f"events of kind {kind!r} have no {sorted(unknown)[0]!r}")
    event_id = f"{stream}/{epoch}/{kind}/{event_no}"
    data = {
        "stream": stream,
        "media_epoch": epoch,
        "event_id": event_id,
        "rev": rev,
        "phase": phase,
        "t_start": t_start,
        "t_end": t_end,
        "t_seen": t_seen,
        "score": score,
        **content,
    }
    return cls.model_validate({"id": f"{event_id}/{rev}", "source": f"/onlooker/{stream}", "data": data})


def parse_event(line: str | bytes) -> Event:
    """Read one line of an event log.

    Raises:
        pydantic.ValidationError: the line is no event of a known type.
    """
    return _ADAPTER.validate_json(line)


def canonical_line(line: str | bytes) -> str:
    """The canonical form of one line of an event log: the same event without ``data.side``."""
    return parse_event(line).to_json(canonical=True)


def event_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line of an event log."""
    schema = _ADAPTER.json_schema(mode="serialization", ref_template="#/$defs/{model}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "onlooker event",
        **schema,
    }


def stream_name(label: str) -> str:
    """A valid stream name made from a file stem or host name: other characters become ``-``."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.")
    return name or "stream"
