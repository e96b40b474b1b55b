"""``onlooker run``: watch a source with a graph."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ..assemble import make_plan, runner_factory, source_spec
from ..errors import UsageError
from ..graph import Graph
from ..secrets import Secrets
from ..session import Session
from ..sinks.base import Sink
from .display import Display, make_display

__all__ = ["add_parser", "add_run_options", "add_secrets_option", "watch_source"]


def add_parser(commands: Any) -> None:
    """Add ``onlooker run``."""
    parser = commands.add_parser(
        "run",
        help="watch a video and write what happens",
        description="Watch a video: captions every few seconds, and events for what you ask for in words.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A --query says what to look for, in plain words; give it as often as you like:\n"
        '  onlooker run street.mp4 --query "a red car" --query "a person crossing the street"\n\n'
        "-o sets anything that `onlooker graph show` lists, e.g. -o decode.fps=4 -o caption.beam=1",
    )
    parser.add_argument("source", metavar="SOURCE", help="the video file (or a picture)")
    add_run_options(parser)
    parser.set_defaults(func=_main)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command that watches something has."""
    what = parser.add_argument_group("what to do")
    what.add_argument(
        "--query", metavar="TEXT", action="append", default=[], help="look for this, in words; repeatable"
    )
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
    add_secrets_option(what)
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--events", metavar="F.jsonl", help="events, one JSON object per line; - is standard output")
    outputs.add_argument(
        "--canonical", action="store_true", help="leave clocks and speed out of --events: same video, same bytes"
    )
    outputs.add_argument("--vtt", metavar="F.vtt", help="captions and query events as WebVTT")
    outputs.add_argument("--srt", metavar="F.srt", help="the same as SubRip")
    outputs.add_argument("--activitynet", metavar="F.json", help="captions as JSON for `onlooker eval dense-captions`")
    outputs.add_argument("--report", metavar="F.html", help="one self-contained page: timeline, key frames, curves")
    outputs.add_argument("--video", metavar="F.mp4", help="the video with captions and queries drawn in")
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
    return watch_source(args.source, args)


def watch_source(source: str, args: argparse.Namespace) -> int:
    """Run the graph over one source as the options say; returns the exit code."""
    secrets = Secrets(args.secrets)
    source = secrets.resolve(source, "the source")
    plan = make_plan(
        args.graph, mode=args.mode, model=args.model, queries=args.query, overrides=args.overrides, secrets=secrets
    )
    sinks = _sinks(args, source, plan.graph)
    display = make_display(quiet=args.quiet, json_logs=args.json_logs, events_on_stdout=args.events == "-")
    specs = [source_spec(source)]
    session = Session(plan.graph, runner_factory(args.runner, args.address), specs, sinks, display.update)
    with display, _interruptible(session, display):
        for event in session.events():
            for notice in plan.notices:  # told once it runs: an error that prevents it should stand alone
                display.note(notice)
            plan.notices.clear()
            display.event(event)
    for failure in session.failures:
        display.warn(failure)
    for stream, end in session.ends.items():
        if end.reason == "truncated":
            display.warn(f"{stream} breaks off at {end.t:.1f} s; everything up to there is complete.")
    if "interrupted" in {end.reason for end in session.ends.values()}:
        display.note("interrupted; what was seen so far is written.")
    return session.exit_code


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


def _sinks(args: argparse.Namespace, source: str, graph: Graph) -> list[Sink]:
    """The sinks that the options ask for; no two may write the same file, none the source."""
    chosen = [p for p in (args.events, args.vtt, args.srt, args.activitynet, args.report, args.video) if p and p != "-"]
    taken = {os.path.realpath(source): "the source"}
    for path in chosen:
        real = os.path.realpath(path)
        if real in taken:
            raise UsageError(f"{path!r} would overwrite {taken[real]}; choose another path.")
        taken[real] = "another output"
    sinks: list[Sink] = []
    if args.events:
        from ..sinks.jsonl import JsonlSink

        sinks.append(JsonlSink(args.events, canonical=args.canonical))
    if args.vtt:
        from ..sinks.subtitles import WebVttSink

        sinks.append(WebVttSink(args.vtt))
    if args.srt:
        from ..sinks.subtitles import SrtSink

        sinks.append(SrtSink(args.srt))
    if args.activitynet:
        from ..sinks.activitynet import ActivityNetSink

        sinks.append(ActivityNetSink(args.activitynet))
    if args.report:
        from ..sinks.report import ReportSink

        sinks.append(ReportSink(args.report, model=_setting(graph, "clip_tower", "model", "")))
    if args.video:
        from ..sinks.video import VideoSink

        if Path(args.video).suffix.lower() != ".mp4":
            raise UsageError(f"--video writes MP4; {args.video!r} should end in .mp4.")
        # A caption is known one interval after its span began; the video waits for it and a little more.
        delay = max(12.0, 2.0 * float(_setting(graph, "git_captioner", "interval", 0.0)))
        sinks.append(VideoSink(args.video, delay=delay, video_stream=_setting(graph, "decode", "video_stream", None)))
    return sinks


def _setting(graph: Graph, use: str, key: str, default: Any) -> Any:
    """A setting of the first node that uses this operator."""
    return next((getattr(node.config, key) for node in graph.nodes if node.use == use), default)
