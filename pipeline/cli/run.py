"""``onlooker run``: watch a source with a graph."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..assemble import camera_specs, is_live, make_plan, runner_factory, source_specs
from ..clips import CLIP_KINDS, CLIP_SECONDS
from ..secrets import Secrets
from ..session import Session
from .argv import out_of_process_list
from .bus_options import Publishing, add_publish_options
from .display import Display, make_display
from .outputs import make_clips, make_sinks

__all__ = ["add_parser", "add_run_options", "add_secrets_option", "watch", "watch_source"]


def add_parser(commands: Any) -> None:
    """Add ``onlooker run``."""
    parser = commands.add_parser(
        "run",
        help="watch a video or cameras and write what happens",
        description="Watch a video or cameras: captions every few seconds, and events for what you ask for in words.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A --query says what to look for, in plain words; give it as often as you like:\n"
        '  onlooker run street.mp4 --query "a red car" --query "a person crossing the street"\n\n'
        "A SOURCE is a file, or live: rtsp://, http(s)://, rtmp://, srt://, udp://, webcam:0, "
        "/dev/video0, lavfi:FILTERS.\n"
        "Passwords need not stand on the command line:\n"
        "  onlooker run 'rtsp://${env:CAM_LOGIN}@192.168.1.20/stream1' --events door.jsonl\n\n"
        "-o sets anything that `onlooker graph show` lists, e.g. -o decode.fps=4 -o caption.beam=1",
    )
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        help="a video file (or a picture), or live sources, each a stream; by default the cameras of the graph",
    )
    add_run_options(parser)
    parser.set_defaults(func=_main)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command that watches something has."""
    what = parser.add_argument_group("what to do")
    what.add_argument(
        "--query", metavar="TEXT", action="append", default=[], help="look for this, in words; repeatable"
    )
    what.add_argument("--classes", metavar="FILE", help="look for every class in this list, one a line")
    what.add_argument("--graph", metavar="NAME|FILE", default="file", help="graph to run (default: %(default)s)")
    what.add_argument(
        "--mode",
        choices=["live", "paper"],
        default="live",
        help="paper: dense captions of a file from frames over all of it, told at the end (with --graph dense)",
    )
    what.add_argument(
        "--model",
        metavar="NAME",
        help="tower instead of the embedded 'tiny': any open_clip name, NAME:PRETRAINED, or a checkpoint",
    )
    what.add_argument(
        "-o",
        dest="overrides",
        metavar="NODE.KEY=VALUE",
        action="append",
        default=[],
        help="change a setting; repeatable",
    )
    what.add_argument(
        "--pace",
        choices=["fast", "realtime"],
        default="fast",
        help="realtime: read a file as if it were a camera, at the pace of its clock (default: %(default)s)",
    )
    add_secrets_option(what)
    outputs = parser.add_argument_group(
        "outputs",
        "Those that tell of one source take {stream} in their names where there are several: a file for each.",
    )
    outputs.add_argument("--events", metavar="F.jsonl", help="events, one JSON object per line; - is standard output")
    outputs.add_argument(
        "--canonical", action="store_true", help="leave clocks and speed out of --events: same video, same bytes"
    )
    outputs.add_argument("--vtt", metavar="F.vtt", help="captions and query events as WebVTT")
    outputs.add_argument("--srt", metavar="F.srt", help="the same as SubRip")
    outputs.add_argument("--activitynet", metavar="F.json", help="captions as JSON for `onlooker eval dense-captions`")
    outputs.add_argument("--mot", metavar="F.txt", help="tracks as rows of MOTChallenge, in pixels of the file")
    outputs.add_argument("--report", metavar="F.html", help="one self-contained page: timeline, key frames, curves")
    outputs.add_argument(
        "--video",
        metavar="F.mp4",
        help="the video, or what was sampled of a camera, with captions, queries and objects drawn in",
    )
    outputs.add_argument("--clips", metavar="DIR", help="a video and a picture of each event; --events names them")
    outputs.add_argument(
        "--clip-of",
        metavar="KINDS",
        default=",".join(CLIP_KINDS),
        help="which events, separated by commas (default: %(default)s)",
    )
    outputs.add_argument(
        "--clips-keep",
        metavar="SIZE",
        default="2GB",
        help="delete the oldest clips when all of them are larger (default: %(default)s)",
    )
    add_publish_options(parser)
    how = parser.add_argument_group("how to run")
    how.add_argument("--runner", choices=["ray", "local"], default="ray", help="engine (default: %(default)s)")
    how.add_argument("--address", metavar="RAY", help="join this Ray cluster instead of starting one here")
    how.add_argument("--quiet", action="store_true", help="say nothing but errors")
    how.add_argument("--json-logs", action="store_true", help="progress as JSON lines on standard error")


def add_secrets_option(parser: Any) -> None:
    """Add ``--secrets``, for every command that reads a source or a graph."""
    parser.add_argument(
        "--secrets",
        metavar="FILE",
        help="NAME=VALUE lines, or .yaml, for ${secret:NAME} in sources and graphs (default: $ONLOOKER_SECRETS)",
    )


def _main(args: argparse.Namespace) -> int:
    addresses = out_of_process_list([*args.sources, *args.bridges])
    args.bridges = addresses[len(args.sources) :]
    return watch(addresses[: len(args.sources)], args)


def watch_source(source: str, args: argparse.Namespace) -> int:
    """Run the graph over one source as the options say; returns the exit code."""
    return watch([source], args)


def watch(sources: Sequence[str], args: argparse.Namespace) -> int:
    """Run the graph over the sources, or over its own cameras, as the options say; returns the exit code."""
    secrets = Secrets(args.secrets)
    sources = [secrets.resolve(source, "the source") for source in sources]
    display = make_display(quiet=args.quiet, json_logs=args.json_logs, events_on_stdout=args.events == "-")
    publishing = Publishing(args, secrets, display.warn)
    clips = make_clips(args)
    plan = make_plan(
        args.graph,
        mode=args.mode,
        model=args.model,
        queries=args.query,
        classes=args.classes or (),
        overrides=args.overrides,
        live=args.pace == "realtime" or any(map(is_live, sources)),
        record=CLIP_SECONDS if clips else 0.0,
        commands=publishing.takes_commands,
        secrets=secrets,
    )
    specs = source_specs(sources) if sources else camera_specs(plan.graph)
    sinks = make_sinks(args, specs, plan.graph) + publishing.sinks
    make_runner = runner_factory(args.runner, args.address)
    session = Session(plan.graph, make_runner, specs, sinks, display.update, display.note, display.warn, clips=clips)
    with display, _interruptible(session, display), publishing.commanding(session):
        for event in session.events():
            for notice in plan.notices:  # told once it runs: an error that prevents it should stand alone
                display.note(notice)
            plan.notices.clear()
            display.event(event)
    _tell_end(session, display)
    return session.exit_code


def _tell_end(session: Session, display: Display) -> None:
    for stream, told in session.progress.streams.items():
        display.note(f"{stream}: {told.conservation()}")
    for failure in session.failures:
        display.warn(failure)
    for stream, end in session.ends.items():
        if end.message is not None and end.reason != "not_opened":  # which was told at once
            display.warn(f"{stream}: {end.message}")
        elif end.reason == "truncated":
            display.warn(f"{stream} breaks off at {end.t:.1f} s; everything up to there is complete.")
    if "interrupted" in {end.reason for end in session.ends.values()}:
        display.note("interrupted; what was seen so far is written.")


@contextmanager
def _interruptible(session: Session, display: Display) -> Iterator[None]:
    """The first Ctrl-C ends the streams and writes what is there; a second one gives up at once."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        display.note("stopping; press Ctrl-C again to give up at once.")
        session.interrupt()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
