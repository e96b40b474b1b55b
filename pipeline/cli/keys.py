"""``onlooker keys``: make and list the keys of a bus."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]

_EXAMPLES = """\
A bus that other machines can reach needs keys; on this machine alone none are needed.

  onlooker keys new server                            on the machine of the bus: server.key, server.key_secret
  onlooker keys new kitchen --role read               for each client: kitchen.key, kitchen.key_secret
  mkdir allowed && mv kitchen.key allowed/            whose .key lies in this folder is let in
  onlooker run cam.mp4 --publish tcp://0.0.0.0:5571 --keys server.key_secret --allow allowed
  onlooker subscribe tcp://HOST:5571 --keys kitchen.key_secret --server-key server.key

Roles: read (events), control (also commands), publish (hand over events to `onlooker bus`).
The client needs its own .key_secret and the bus's .key; nobody else needs a .key_secret. Taking a .key out of the
folder shuts its owner out within seconds.
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker keys``."""
    parser = commands.add_parser(
        "keys",
        help="make and list the keys of a bus",
        description="Make and list the keys of a bus (CURVE pairs).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a pair: NAME.key (public) and NAME.key_secret")
    new.add_argument("name", metavar="NAME")
    new.add_argument("--role", choices=["read", "control", "publish"], help="what a client may do (default: read)")
    new.add_argument("--folder", metavar="DIR", type=Path, default=Path(), help="where (default: here)")
    new.set_defaults(func=_new)
    show = actions.add_parser("list", help="list the keys in a folder and their roles")
    show.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=Path(), help="default: here")
    show.set_defaults(func=_list)


def _new(args: argparse.Namespace) -> int:
    from ..bus.keys import new_keys

    public, secret = new_keys(args.name, args.folder, args.role)
    print(f"{public}  public: goes to whoever has to know {args.name}")
    print(f"{secret}  secret: stays with {args.name}")
    return 0


def _list(args: argparse.Namespace) -> int:
    from ..bus.keys import AllowList

    pairs = AllowList.pairs(args.folder)
    for pair in pairs:
        print(f"{pair.name:<30} {pair.role or 'read':<8} {pair.public.decode()}")
    if not pairs:
        print(f"no keys in {args.folder}")
    return 0
