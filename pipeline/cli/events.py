"""``onlooker events search``: full-text search over what has been seen."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .bus_client import add_choice, add_format, add_keys, line_writer

__all__ = ["add_parser"]

_EXAMPLES = """\
examples:
  onlooker events search "red truck" --last 24h              ask the bus of this machine
  onlooker events search '"red truck" parks' --store events.db      a phrase and a word, in a store
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker events``."""
    events = commands.add_parser(
        "events", help="search the events of a bus or a store", description="Look for events that have been."
    )
    parser = events.add_subparsers(dest="what", required=True, metavar="WHAT").add_parser(
        "search",
        help="events by their words",
        description="Print the events whose words match, best first: captions, queries, objects, messages.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.add_argument("text", metavar="WORDS", help='words that must all occur; "..." inside for a phrase')
    parser.add_argument("--last", metavar="TIME", help="only the last 10m, 24h, 7d")
    parser.add_argument("--since", metavar="WHEN", help="only what came at or after this time, e.g. 2026-05-01T10:00")
    parser.add_argument("--until", metavar="WHEN", help="only what came before this time, or as long ago")
    add_choice(parser)
    parser.add_argument(
        "--limit", metavar="N", type=int, default=50, help="most events, 1 to 256 (default: %(default)s)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--store", metavar="F.db", help="the file of an event store; a bus may be running or not")
    where.add_argument("--bus", metavar="ADDRESS", help="a bus (default: tcp://127.0.0.1:5571)")
    add_format(parser)
    add_keys(parser)
    parser.set_defaults(func=_search)


def _search(args: argparse.Namespace) -> int:
    from ..bus.protocol import DEFAULT_ADDRESS, PAGE_EVENTS
    from ..bus.since import moment
    from ..errors import UsageError
    from .archive import open_archive

    if args.last is not None and args.since is not None:
        raise UsageError("--last and --since say the same; give one of them.")
    if not 1 <= args.limit <= PAGE_EVENTS:
        raise UsageError(f"--limit must lie between 1 and {PAGE_EVENTS}, not {args.limit}.")
    since, until = (None if text is None else moment(text) for text in (args.last or args.since, args.until))
    with open_archive(args.store or args.bus or DEFAULT_ADDRESS, args.keys, args.server_key) as archive:
        found = archive.search(
            args.text, since=since, until=until, streams=args.streams, kinds=args.kinds, limit=args.limit
        )
    write = line_writer(args.format)
    for stored in found:
        write(stored)
    if not found:
        print("onlooker: nothing found", file=sys.stderr)
    return 0
