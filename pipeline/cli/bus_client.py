"""What the commands that read a bus have in common: options, lines for people, lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .display import format_time

if TYPE_CHECKING:
    from ..bus.inbox import Gap
    from ..bus.record import Stored

__all__ = ["add_choice", "add_format", "add_keys", "json_line", "line_writer", "text_line", "warn_of"]


def add_keys(parser: Any) -> None:
    """``--keys`` and ``--server-key``."""
    parser.add_argument("--keys", metavar="FILE", help="your NAME.key_secret, for a bus with keys")
    parser.add_argument("--server-key", metavar="FILE", help="the bus's SERVER.key, for a bus with keys")


def add_choice(parser: Any) -> None:
    """``--stream`` and ``--type``."""
    parser.add_argument(
        "--stream", dest="streams", metavar="NAME", action="append", default=[], help="only this stream; repeatable"
    )
    parser.add_argument(
        "--type",
        dest="kinds",
        metavar="KIND",
        action="append",
        default=[],
        help="only this kind: caption, query, track, stream, alarm ...; repeatable",
    )


def add_format(parser: Any) -> None:
    """``--format``."""
    parser.add_argument(
        "--format",
        choices=["text", "jsonl", "none"],
        default="text",
        help="a line for people, the CloudEvent as JSON, or nothing (default: %(default)s)",
    )


def line_writer(form: str) -> Callable[[Stored], None]:
    """Writes events to standard output, one line each, at once."""
    if form == "none":
        return lambda stored: None
    line = {"text": text_line, "jsonl": json_line}[form]

    def write(stored: Stored) -> None:
        print(line(stored), flush=True)

    return write


def json_line(stored: Stored) -> str:
    """The CloudEvent on one line, with its place in the bus's log as extension attributes, where it has one."""
    from ..bus.protocol import dumps, loads

    members = loads(stored.body)
    if stored.header.seq is not None:
        members["sequence"] = str(stored.header.seq)
        members["busepoch"] = stored.header.epoch
    return dumps(members).decode()


def text_line(stored: Stored) -> str:
    """A line for a person: number, when, stream, kind, phase, words."""
    from ..bus.protocol import ProtocolError
    from ..bus.reading import read_event

    number = "-" if stored.header.seq is None else str(stored.header.seq)
    try:
        event = read_event(stored.body)
    except ProtocolError as error:
        return f"{number:>6}  {'':<13}  {stored.stream}  {stored.kind} ({error})"
    data = event.data
    if data.media_epoch and data.side is not None and data.side.wall is not None:
        when = f"{datetime.fromisoformat(data.side.wall).astimezone():%H:%M:%S}"
    elif data.media_epoch:
        when = f"{datetime.fromtimestamp(stored.header.time):%H:%M:%S}"
    else:
        when = format_time(event.t_start) + (f"-{format_time(event.t_end)}" if event.t_end is not None else "")
    # Words come from afar: what would steer the terminal stays out.
    said = "".join(letter if letter.isprintable() else " " for letter in _words(event))
    return f"{number:>6}  {when:<13}  {data.stream}  {stored.kind} {event.phase:<6}  {said}"


def _words(event: Any) -> str:
    from ..bus.reading import words

    data = event.data
    match event.kind:
        case "query":
            return f"{data.query!r}" + ("" if data.score is None else f" (score {data.score:.2f})")
        case "track":
            return f"{event.event_no} {words(event)}".rstrip()
        case "stream":
            return ", ".join(str(part) for part in (data.status, data.message or data.reason) if part)
        case "alarm":
            return f"{data.code}: {data.message}"
    return words(event)


def warn_of(gap: Gap) -> None:
    """Tell on standard error what is missing."""
    print(f"onlooker: {gap}", file=sys.stderr, flush=True)
