"""``onlooker demo``: the whole way from photographs to a report, on what comes with the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .display import format_time
from .run import add_run_options, watch_source

__all__ = ["add_parser"]

_QUERIES = ["a cat", "a tower at sunset", "a photographer with a tripod"]
_SECONDS = 40.0


def add_parser(commands: Any) -> None:
    """Add ``onlooker demo``."""
    parser = commands.add_parser(
        "demo",
        help="make a short video, watch it, and write a report",
        description="Make a short video from public-domain photographs, watch it, and write events, subtitles, a "
        "report and an annotated video. Needs no network and no data.",
    )
    parser.add_argument("--out", metavar="DIR", default="onlooker-demo", help="folder (default: %(default)s)")
    add_run_options(parser)
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    folder = Path(args.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {args.out!r}: {(error.strerror or str(error)).lower()}.") from None
    video = folder / "demo.mp4"
    from onlooker.training.scenes import demo_scenes, write_scenes

    try:
        truth = write_scenes(demo_scenes(), video, seed=1, total_seconds=_SECONDS)
    except OSError as error:
        raise OutputError(f"cannot write {str(video)!r}: {(error.strerror or str(error)).lower()}.") from None
    if not args.quiet:
        print(f"what {video} shows:")
        for scene in truth.scenes:
            print(f"  {format_time(scene.t_start)}-{format_time(scene.t_end)}  {scene.captions[0]}")
        print("what onlooker sees:", flush=True)
    args.query = args.query or _QUERIES
    wanted = {"events": "events.jsonl", "vtt": "demo.vtt", "srt": "demo.srt", "report": "report.html"}
    for option, name in {**wanted, "video": "annotated.mp4"}.items():
        if getattr(args, option) is None:
            setattr(args, option, str(folder / name))
    code = watch_source(str(video), args)
    if not args.quiet:
        print(f"report: {Path(args.report).resolve()}")
    return code
