"""Options that have to do with the bus, and what they make."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bus.protocol import DEFAULT_ADDRESS
from ..errors import UsageError
from ..secrets import Secrets

if TYPE_CHECKING:
    from ..bus.bridges import Bridge
    from ..bus.keys import ClientKeys, ServerKeys
    from ..bus.store import EventStore
    from ..commands import SessionCommands
    from ..session import Session
    from ..sinks.base import Sink

__all__ = [
    "Publishing",
    "add_bus_options",
    "add_publish_options",
    "bridges",
    "client_keys",
    "event_store",
    "server_keys",
]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DEFAULT_STORE = "events.db"


def size(text: str) -> int:
    """Bytes of ``500M`` or ``2G``.

    Raises:
        argparse.ArgumentTypeError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None or (value := int(float(found[1]) * _UNITS[found[2]])) < 1 << 20:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500M or 2G, at least 1M.")
    return value


def age(text: str) -> float:
    """Seconds of ``12h`` or ``30d``.

    Raises:
        argparse.ArgumentTypeError: it is no time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 12h or 30d.")
    return float(found[1]) * _SECONDS[found[2]]


def add_bus_options(group: Any) -> None:
    """Add what a bus needs to know."""
    group.add_argument(
        "--store", metavar="F.db", type=Path, help=f"where the bus keeps its events (default: {_DEFAULT_STORE})"
    )
    group.add_argument("--keep", metavar="SIZE", type=size, help="delete the oldest events beyond this (default: 2G)")
    group.add_argument("--keep-for", metavar="TIME", type=age, help="delete events older than this, such as 30d")
    group.add_argument("--keys", metavar="F.key_secret", type=Path, help="key of the bus: see `onlooker keys --help`")
    group.add_argument("--allow", metavar="DIR", type=Path, help="folder of the .key files of those who are let in")
    group.add_argument(
        "--commands", action="store_true", help="without keys: take commands from everybody on this machine"
    )
    group.add_argument(
        "--bridge",
        dest="bridges",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="carry events on to mqtt://, https:// or kafka://; repeatable",
    )
    group.add_argument("--bridges", dest="bridges_file", metavar="F.yaml", type=Path, help="bridges from a file")


def add_publish_options(parser: argparse.ArgumentParser) -> None:
    """Add what `onlooker run` needs to publish its events."""
    group = parser.add_argument_group("publishing", "see also `onlooker subscribe`, `onlooker bus` and `onlooker keys`")
    group.add_argument(
        "--publish",
        metavar="ADDRESS",
        help=f"keep events and serve them to subscribers on this address, such as {DEFAULT_ADDRESS}",
    )
    group.add_argument("--bus", metavar="ADDRESS", help="hand events over to the `onlooker bus` on this address")
    add_bus_options(group)
    group.add_argument("--server-key", metavar="F.key", type=Path, help="with --bus: the public key of the bus")


class Publishing:
    """What a run publishes through; nothing where no option asks for it."""

    def __init__(self, args: argparse.Namespace, secrets: Secrets, notice: Callable[[str], None]) -> None:
        """Check the options.

        Raises:
            UsageError: they do not go together, or the address needs keys.
            KeysError: a key cannot be used.
            BridgeError: a bridge makes no sense.
            SecretsError: a secret cannot be had.
        """
        self.sinks: list[Sink] = []
        self._commands: SessionCommands | None = None
        _check_together(args)
        if args.publish is None and args.bus is None:
            return
        from ..commands import SessionCommands

        if args.bus is not None:
            from ..bus.handover import Handover
            from ..sinks.bus import HandoverSink

            self._commands = SessionCommands(secrets)
            handover = Handover(args.bus, keys=client_keys(args), commands=self._commands, notice=notice)
            self.sinks.append(HandoverSink(handover, notice))
            return
        from ..bus.server import BusServer
        from ..sinks.bus import BusSink

        keys = server_keys(args)
        if keys is not None or args.commands:
            self._commands = SessionCommands(secrets)
        server = BusServer(
            args.publish,
            event_store(args),
            keys=keys,
            commands=self._commands or False,
            bridges=bridges(args, secrets),
            notice=notice,
        )
        self.sinks.append(BusSink(server, notice))

    @property
    def takes_commands(self) -> bool:
        """Whether commands may come."""
        return self._commands is not None

    @contextmanager
    def commanding(self, session: Session) -> Iterator[None]:
        """Commands that come reach the session in this block."""
        if self._commands is None:
            yield
            return
        self._commands.attach(session)
        try:
            yield
        finally:
            self._commands.close()


def _check_together(args: argparse.Namespace) -> None:
    if args.publish is not None and args.bus is not None:
        raise UsageError("--publish serves events itself and --bus hands them over; choose one.")
    of_a_bus = ("store", "keep", "keep_for", "allow", "commands", "bridges", "bridges_file")
    given = next((name for name in of_a_bus if getattr(args, name)), None)
    if given is not None and args.publish is None:
        option = {"bridges_file": "bridges", "bridges": "bridge"}.get(given, given).replace("_", "-")
        raise UsageError(f"--{option} belongs to --publish ADDRESS, or to `onlooker bus`.")
    if args.server_key is not None and args.bus is None:
        raise UsageError("--server-key belongs to --bus ADDRESS.")
    if args.keys is not None and args.publish is None and args.bus is None:
        raise UsageError("--keys belongs to --publish ADDRESS or --bus ADDRESS.")


def bridges(args: argparse.Namespace, secrets: Secrets) -> list[Bridge]:
    """The bridges that the options ask for; not started yet.

    Raises:
        BridgeError: one makes no sense.
        SecretsError: a secret cannot be had.
    """
    if not args.bridges and args.bridges_file is None:
        return []
    from ..bus.bridges import make_bridges, read_bridges

    listed = [] if args.bridges_file is None else read_bridges(args.bridges_file)
    return make_bridges([*args.bridges, *listed], secrets)


def event_store(args: argparse.Namespace) -> EventStore:
    """The store that the options ask for; not open yet."""
    from ..bus.store import EventStore

    keep: dict[str, Any] = {} if args.keep is None else {"max_bytes": args.keep}
    return EventStore(args.store or Path(_DEFAULT_STORE), max_age=args.keep_for, **keep)


def server_keys(args: argparse.Namespace) -> ServerKeys | None:
    """The keys of a bus, if it has any.

    Raises:
        UsageError: one of two options is missing.
        KeysError: a key cannot be used.
    """
    if args.keys is None and args.allow is None:
        return None
    if args.keys is None or args.allow is None:
        raise UsageError("--keys SERVER.key_secret and --allow FOLDER belong together; see `onlooker keys --help`.")
    from ..bus.keys import ServerKeys

    return ServerKeys.read(args.keys, args.allow)


def client_keys(args: argparse.Namespace) -> ClientKeys | None:
    """The keys of a client, if it has any.

    Raises:
        UsageError: one of two options is missing.
        KeysError: a key cannot be used.
    """
    if args.keys is None and args.server_key is None:
        return None
    if args.keys is None or args.server_key is None:
        raise UsageError(
            "--keys OWN.key_secret and --server-key SERVER.key belong together; see `onlooker keys --help`."
        )
    from ..bus.keys import ClientKeys

    return ClientKeys.read(args.keys, args.server_key)
