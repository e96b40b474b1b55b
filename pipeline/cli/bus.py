"""``onlooker bus``: a bus for the events of pipelines in other processes."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..bus.protocol import DEFAULT_ADDRESS
from ..secrets import Secrets
from .argv import out_of_process_list
from .bus_options import add_bus_options, bridges, event_store, server_keys
from .run import add_secrets_option

if TYPE_CHECKING:
    from ..bus.server import BusServer

__all__ = ["add_parser"]

_LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal."""
_EXAMPLES = """\
examples:
  onlooker bus                                        for programs on this machine
  onlooker run door.mp4 --bus tcp://127.0.0.1:5571    hand over events to it
  onlooker subscribe tcp://127.0.0.1:5571             and read them
  onlooker bus tcp://0.0.0.0:5571 --keys server.key_secret --allow allowed     for other machines, see `onlooker keys`
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker bus``."""
    parser = commands.add_parser(
        "bus",
        help="serve the events of several pipelines on one address",
        description="Take the events of pipelines (`onlooker run --bus`), keep them, and serve them to subscribers. "
        "One pipeline alone can serve its own: `onlooker run --publish`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.add_argument("address", metavar="ADDRESS", nargs="?", default=DEFAULT_ADDRESS, help="default: %(default)s")
    add_bus_options(parser)
    add_secrets_option(parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing but what is wrong")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    from ..bus.server import BusServer

    secrets = Secrets(args.secrets)
    args.bridges = out_of_process_list(args.bridges)
    carried = bridges(args, secrets)
    keys = server_keys(args)
    server = BusServer(
        args.address,
        event_store(args),
        keys=keys,
        commands=keys is not None or args.commands,
        ingest=True,
        bridges=carried,
    )
    with _signals() as stop, server:
        if not args.quiet:
            _introduce(server, keyed=keys is not None, commands=args.commands)
        _watch(server, stop, quiet=args.quiet)
    return 130 if stop.number == signal.SIGINT else 0


def _introduce(server: BusServer, *, keyed: bool, commands: bool) -> None:
    where = server.addresses
    print(f"events    {where.events}  (with {where.requests} for questions, {where.ingest} for pipelines)")
    print(f"store     {server.store.path}, {server.store.last_seq - server.store.oldest_seq + 1} events")
    who = "with a key of the allowed folder" if keyed else "on this machine"
    orders = "keys of the role control" if keyed else ("everybody who can connect" if commands else "nobody")
    print(f"access    everybody {who}; commands: {orders}", flush=True)


class _Stop(threading.Event):
    """Set by a signal, whose number it keeps."""

    number: int | None = None


@contextmanager
def _signals() -> Iterator[_Stop]:
    stop = _Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.number = number
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(server: BusServer, stop: _Stop, *, quiet: bool) -> None:
    """Say how it goes until a signal comes: a line that changes on a terminal, else one now and then."""
    if quiet:
        stop.wait()
        return
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("") as status:
            for line in _lines(server, stop, every=1.0):
                status.update(line)
        return
    told = ""
    for line in _lines(server, stop, every=_LINE_EVERY):
        if line != told:
            print(line, file=sys.stderr, flush=True)
        told = line


def _lines(server: BusServer, stop: _Stop, *, every: float) -> Iterator[str]:
    before, at = server.counters(), time.monotonic()
    while not stop.wait(every):
        now, elapsed = server.counters(), time.monotonic() - at
        rate = (now["published"] - before["published"]) / elapsed
        parts = [
            f"{rate:.1f} events/s",
            f"{server.store.last_seq} in all",
            f"{now['runs']} pipelines",
            f"{now['subscribers']} subscribers",
        ]
        parts += [f"{now[name]} {name}" for name in ("waiting", "unstored", "refused", "cut") if now[name]]
        yield ", ".join(parts)
        before, at = now, time.monotonic()
