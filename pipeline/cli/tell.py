"""``onlooker tell``: commands to the pipelines behind a bus."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ..errors import UsageError
from .bus_client import add_keys, line_writer
from .values import region

__all__ = ["add_parser"]

_EXAMPLES = """\
examples:
  onlooker tell query.add "a red truck" --stream cam1
  onlooker tell stream.add 'rtsp://${env:DOOR}@192.168.1.20/stream1' --stream door      resolved where the pipeline runs
  onlooker tell ask cam1 --box 0.5,0,1,1                                 what is in the right half of the picture now
  onlooker tell --bus tcp://192.168.1.5:5571 --keys me.key_secret --server-key server.key stream.remove door
"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker tell``."""
    parser = commands.add_parser(
        "tell",
        help="commands to pipelines: look for something, watch a camera, say what is there now",
        description="Give a command to the pipelines behind a bus. It must allow that: by the role control of a key, "
        "or, without keys, by --commands.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.add_argument("--bus", metavar="ADDRESS", help="the bus (default: tcp://127.0.0.1:5571)")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=30.0, help="seconds to wait for an answer (default: %(default)s)"
    )
    add_keys(parser)
    parser.set_defaults(func=_main)
    ops = parser.add_subparsers(dest="op", required=True, metavar="COMMAND")
    for op, about in (("query.add", "look for something, in words"), ("query.remove", "look for it no more")):
        one = ops.add_parser(op, help=about)
        one.add_argument("text", metavar="WORDS")
        one.add_argument("--stream", metavar="NAME", help="in this stream alone")
    one = ops.add_parser("stream.add", help="watch one more camera")
    one.add_argument("source", metavar="SOURCE", help="its address; ${env:NAME} is resolved where the pipeline runs")
    one.add_argument("--stream", metavar="NAME", help="its name")
    one.add_argument("--run", metavar="ID", help="the run of the pipeline that is to watch it")
    one = ops.add_parser("stream.remove", help="watch a camera no more")
    one.add_argument("stream", metavar="NAME")
    one = ops.add_parser("ask", help="caption what is there now, and wait for the caption")
    one.add_argument("stream", metavar="NAME")
    one.add_argument("--box", metavar="X0,Y0,X1,Y1", type=region, help="a part of the picture, from 0 to 1")


def _main(args: argparse.Namespace) -> int:
    from ..bus.client import BusClient
    from ..bus.protocol import DEFAULT_ADDRESS
    from ..bus.subscriber import Subscription

    address, keys = args.bus or DEFAULT_ADDRESS, {"keys": args.keys, "server_key": args.server_key}
    names = ("text", "source", "stream", "run", "box")
    members = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    until = time.monotonic() + args.timeout
    with BusClient(address, timeout=args.timeout, **keys) as client:
        seq = client.hello()["seq"]
        told = client.request(args.op, **members).members
        if args.op == "stream.add" and "stream" in told:
            print(told["stream"])
        if not told["accepted"]:
            raise UsageError("no pipeline took the command.")
    if args.op == "ask":
        with Subscription(address, stream=args.stream, kinds="caption", phase="end", since=seq, **keys) as events:
            while (event := events.get(max(until - time.monotonic(), 0))) is not None:
                if getattr(event.data, "ask", None) == told["ask"] and events.last is not None:
                    line_writer("text")(events.last)
                    return 0
        raise UsageError(f"no caption of {args.stream} came within {args.timeout:g} s.")
    return 0
