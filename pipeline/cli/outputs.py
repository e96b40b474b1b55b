"""The outputs that the options of the command line ask for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..graph import Graph
from ..sinks.base import Sink

__all__ = ["make_sinks"]


def make_sinks(args: argparse.Namespace, sources: Sequence[str], graph: Graph) -> list[Sink]:
    """The sinks that the options ask for; no two may write the same file, none a source.

    Raises:
        UsageError: they may not, or an output tells of one file and there is something else to watch.
    """
    _check_one_file(args, sources, graph)
    chosen = [p for p in (args.events, args.vtt, args.srt, args.activitynet, args.report, args.video) if p and p != "-"]
    taken = {os.path.realpath(source): "the source" for source in sources}
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


def _check_one_file(args: argparse.Namespace, sources: Sequence[str], graph: Graph) -> None:
    """Outputs with one line of time describe one file: the times of a live source begin anew with each connection."""
    option = next((o for o in ("vtt", "srt", "activitynet", "report", "video") if getattr(args, o)), None)
    if option is not None and (graph.live or len(sources) > 1):
        what = "a live source" if graph.live else "several sources"
        raise UsageError(f"--{option} tells of one file from its start to its end; for {what} write --events.")


def _setting(graph: Graph, use: str, key: str, default: Any) -> Any:
    """A setting of the first node that uses this operator."""
    return next((getattr(node.config, key) for node in graph.nodes if node.use == use), default)
