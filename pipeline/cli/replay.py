"""``onlooker replay``: stored events once more, as fast as they came."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING, Any

from .bus_client import add_choice, add_format, add_keys, line_writer, warn_of

if TYPE_CHECKING:
    from ..bus.inbox import Gap

__all__ = ["add_parser"]

_EXAMPLES = """\
examples:
  onlooker replay events.db --since 2026-05-01T10:00 --until 2026-05-01T10:30 --speed 10
  onlooker replay tcp://127.0.0.1:5571 --since 1h --type caption --speed max --format jsonl
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker replay``."""
    parser = commands.add_parser(
        "replay",
        help="stored events once more, as fast as they came",
        description="Print the events of a store or a bus in their order, at the pace at which they came.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.add_argument("where", metavar="STORE|ADDRESS", help="the file of an event store, or the address of a bus")
    parser.add_argument("--since", metavar="WHEN", default="all", help="as in `onlooker subscribe` (default: all)")
    parser.add_argument(
        "--until", metavar="WHEN", help="end at this time, as long ago, or with the event of this number"
    )
    add_choice(parser)
    parser.add_argument(
        "--speed", metavar="N", type=_speed, default=1.0, help="times as fast as they came, or `max` (default: 1)"
    )
    add_format(parser)
    add_keys(parser)
    parser.set_defaults(func=_main)


def _speed(text: str) -> float:
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no speed; write a number above 0, or max")
    return speed


def _main(args: argparse.Namespace) -> int:
    from ..bus.inbox import Position
    from ..bus.since import start
    from .archive import open_archive

    gaps = 0

    def missed(gap: Gap) -> None:
        nonlocal gaps
        gaps += 1
        warn_of(gap)

    begin, end = start(args.since), start(args.until)
    after: Any = {"seq": begin.seq} if isinstance(begin, Position) else begin
    last = end.seq if isinstance(end, Position) else math.inf
    before = end["time"] if end and not isinstance(end, Position) else math.inf
    write = line_writer(args.format)
    came = due = None
    with open_archive(args.where, args.keys, args.server_key) as archive:
        for stored in archive.events(after, missed, streams=args.streams, kinds=args.kinds):
            header = stored.header
            if (header.seq or 0) > last or header.time >= before:
                break
            now = time.monotonic()
            due = now if came is None or due is None else due + (header.time - came) / args.speed
            came = header.time
            if due > now:
                time.sleep(due - now)
            write(stored)
    return 3 if gaps else 0
