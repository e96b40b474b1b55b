"""``onlooker subscribe``: the events of a bus on the terminal, in a pipe or in a file."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .bus_client import add_choice, add_format, add_keys, json_line, line_writer, warn_of

if TYPE_CHECKING:
    from ..bus.receiver import State

__all__ = ["add_parser"]

_EXAMPLES = """\
examples:
  onlooker subscribe                                       what is new, from the bus of this machine
  onlooker subscribe tcp://127.0.0.1:5571 --since 10m --type caption --phase end
  onlooker subscribe --since all --format jsonl --log events.jsonl     may be killed and started again at any time
  onlooker subscribe tcp://192.168.1.5:5571 --keys me.key_secret --server-key server.key

It connects again by itself. exit codes: 0 --count reached, 2 no bus within --timeout, or refused by it, 3 events were
missing, 130 Ctrl-C
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker subscribe``."""
    parser = commands.add_parser(
        "subscribe",
        help="events of a bus as they come, and those before",
        description="Print the events of a bus (`onlooker run --publish`, `onlooker bus`) as they come, none missed "
        "and none twice, also when the bus or the network was away.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.add_argument("address", metavar="ADDRESS", nargs="?", help="default: tcp://127.0.0.1:5571")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        help="begin 90s, 10m, 2h, 1d ago, at a time, after the event of that number, or with `all` (default: now)",
    )
    add_choice(parser)
    parser.add_argument("--phase", choices=["new", "update", "end"], help="only this phase; end: settled facts alone")
    parser.add_argument("--text", metavar="WORDS", help="only events in whose words all of these occur")
    add_format(parser)
    parser.add_argument(
        "--log",
        metavar="FILE",
        help="append the events to FILE as JSON lines; begins after the last one that is in it, whatever --since says",
    )
    parser.add_argument("--count", metavar="N", type=_count, help="end after N events")
    parser.add_argument("--timeout", metavar="S", type=float, help="seconds without a bus after which to give up")
    add_keys(parser)
    parser.set_defaults(func=_main)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of events")
    return int(text)


def _main(args: argparse.Namespace) -> int:
    from ..bus.event_log import EventLog
    from ..bus.inbox import Gap
    from ..bus.protocol import DEFAULT_ADDRESS
    from ..bus.subscriber import Subscription

    address = args.address or DEFAULT_ADDRESS
    gaps = 0

    def missed(gap: Gap) -> None:
        nonlocal gaps
        gaps += 1
        warn_of(gap)

    def state(now: State) -> None:
        text = f"waiting for the bus at {address}" if now == "waiting" else "connected"
        print(f"onlooker: {text}", file=sys.stderr, flush=True)

    write = line_writer(args.format)
    try:
        with ExitStack() as opened:
            log = opened.enter_context(EventLog(args.log)) if args.log else None
            events = opened.enter_context(
                Subscription(
                    address,
                    stream=args.streams,
                    kinds=args.kinds,
                    phase=args.phase,
                    text=args.text,
                    since=args.since,
                    position=log.position if log else None,
                    keys=args.keys,
                    server_key=args.server_key,
                    timeout=args.timeout,
                    on_gap=missed,
                    on_state=state,
                )
            )
            for number, _ in enumerate(events, 1):
                assert (stored := events.last) is not None
                if log is not None:
                    log.append(json_line(stored))
                write(stored)
                if number == args.count:
                    break
    except KeyboardInterrupt:
        return 130
    return 3 if gaps else 0
