"""``onlooker simulate-camera``: a file as a live camera, with faults on command."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from ..simulate.formats import Codec
    from ..simulate.simulator import Settings

__all__ = ["add_parser"]

_RANGES: dict[str, tuple[float, float]] = {
    "fps": (0.1, 240),
    "session_timeout": (0.1, 86_400),
    "report_interval": (0.01, 86_400),
    "clock_offset": (-1e9, 1e9),
    "clock_drift": (-500_000, 500_000),
}
_INTRODUCTION = """\
examples:
  onlooker simulate-camera street.mp4
  onlooker simulate-camera street.mp4 --codec h265 --size 640x360 --fault kill@20/30:5 --fault loss:2
  onlooker simulate-camera street.mp4 --user admin --password-env CAMERA_PASSWORD

A fault is KIND[@SECONDS[/EVERY]][:VALUE][,SECONDS]: when it begins, counted from the start (at once if left out), how
often it comes back, and what it takes. With --control they also come by TCP, a line of JSON each:
  {"fault": "loss", "percent": 5, "seconds": 60}   {"status": true}   {"clear": true}   {"stop": true}

"""


def add_parser(commands: Any) -> None:
    """Add ``onlooker simulate-camera``."""
    from ..simulate.faults import help_text

    parser = commands.add_parser(
        "simulate-camera",
        help="play a file as a network camera, with faults on command",
        description="Play a video file as a live network camera (RTSP, or MJPEG over HTTP), over and over in real "
        "time, and let go wrong what goes wrong with cameras.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_INTRODUCTION + help_text(),
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the video file")
    _add_address(parser.add_argument_group("address"))
    _add_pictures(parser.add_argument_group("pictures"))
    _add_clock(parser.add_argument_group("clock"))
    faults = parser.add_argument_group("faults")
    faults.add_argument(
        "--fault", dest="faults", metavar="FAULT", action="append", default=[], help="see below; repeatable"
    )
    faults.add_argument(
        "--control", metavar="PORT", type=int, help="take commands on 127.0.0.1:PORT; 0 is any free port"
    )
    faults.add_argument("--seed", type=int, default=0, help="of losses and garbage (default: %(default)s)")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(func=_main)


def _add_address(group: Any) -> None:
    group.add_argument("--port", type=int, default=8554, help="0 is any free port (default: %(default)s)")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    group.add_argument("--path", default="/live", help="path of the URL (default: %(default)s)")
    group.add_argument(
        "--protocol", choices=["rtsp", "http-mjpeg"], default="rtsp", help="what it speaks (default: %(default)s)"
    )
    group.add_argument("--user", help="ask for this user name; needs --password-env")
    group.add_argument("--password-env", metavar="NAME", help="environment variable that holds the password")
    scheme = group.add_mutually_exclusive_group()
    scheme.add_argument("--digest", dest="digest", action="store_true", default=True, help="ask by Digest (default)")
    scheme.add_argument("--basic", dest="digest", action="store_false", help="ask by Basic, which sends the password")
    group.add_argument(
        "--session-timeout",
        metavar="S",
        type=float,
        default=60.0,
        help="seconds without a sign of life that end a session (default: %(default)s)",
    )
    group.add_argument(
        "--rtp-info",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tell the first timestamp in the answer to PLAY; some cameras do not",
    )


def _add_pictures(group: Any) -> None:
    group.add_argument(
        "--codec",
        choices=["copy", "h264", "h265", "mjpeg"],
        default="copy",
        help="copy keeps the file's where cameras can send it, and clients wait for its key frames; encoding makes one "
        "for each client that comes (default: %(default)s)",
    )
    group.add_argument("--size", metavar="WxH", help="resolution (default: the file's)")
    group.add_argument("--fps", metavar="N", type=float, help="pictures per second (default: the file's)")
    repeat = group.add_mutually_exclusive_group()
    repeat.add_argument(
        "--loop", dest="loop", action="store_true", default=True, help="start over at the end (default)"
    )
    repeat.add_argument(
        "--once", dest="loop", action="store_false", help="begin with the first client, play once, and exit"
    )


def _add_clock(group: Any) -> None:
    group.add_argument(
        "--clock-offset", metavar="S", type=float, default=0.0, help="seconds by which the camera's clock is wrong"
    )
    group.add_argument(
        "--clock-drift", metavar="PPM", type=float, default=0.0, help="parts per million by which it runs fast"
    )
    group.add_argument(
        "--sender-reports",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tell the camera's time by RTCP sender reports",
    )
    group.add_argument(
        "--report-interval",
        metavar="S",
        type=float,
        default=5.0,
        help="seconds between sender reports (default: %(default)s)",
    )


def _main(args: argparse.Namespace) -> int:
    from ..simulate.simulator import Simulator

    settings = _settings(args)

    def say(text: str) -> None:
        try:
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
        except BrokenPipeError:  # nobody reads our lines any more; the clients still watch
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process

    async def run() -> None:
        await Simulator(settings, say).run()

    asyncio.run(run())
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from ..simulate.faults import parse_fault
    from ..simulate.formats import Wish, parse_size
    from ..simulate.simulator import Settings

    for name, (low, high) in _RANGES.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"--{name.replace('_', '-')} must lie between {low:g} and {high:g}, not {value:g}.")
    codec: Codec | None = None if args.codec == "copy" else args.codec
    if args.protocol == "http-mjpeg":
        if codec not in (None, "mjpeg"):
            raise UsageError("--protocol http-mjpeg sends MJPEG; leave --codec out.")
        codec = "mjpeg"
    return Settings(
        file=args.file,
        host=args.host,
        port=args.port,
        path="/" + args.path.strip("/"),
        protocol=args.protocol,
        wish=Wish(codec, parse_size(args.size) if args.size else None, args.fps),
        account=_account(args),
        faults=tuple(parse_fault(text) for text in args.faults),
        clock_offset=args.clock_offset,
        clock_drift=args.clock_drift,
        report_interval=args.report_interval if args.sender_reports else None,
        rtp_info=args.rtp_info,
        session_timeout=args.session_timeout,
        control=args.control,
        loop=args.loop,
        seed=args.seed,
        parent=args.parent,
    )


def _account(args: argparse.Namespace) -> Any:
    from ..simulate.auth import Account

    if args.user is None and args.password_env is None:
        return None
    if args.user is None or args.password_env is None:
        raise UsageError("--user and --password-env belong together; the password is never on the command line.")
    password = os.environ.get(args.password_env)
    if password is None:
        raise UsageError(f"the environment variable {args.password_env} is not set; it should hold the password.")
    return Account(args.user, password, args.digest)
