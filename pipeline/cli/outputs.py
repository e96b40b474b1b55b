"""The outputs that the options of the command line ask for."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..clips import ClipSettings
from ..errors import UsageError
from ..graph import Graph
from ..runtime.batch import SourceSpec
from ..sinks.base import Sink

__all__ = ["make_clips", "make_sinks"]

_OF_ONE_STREAM = ("vtt", "srt", "activitynet", "mot", "report", "video")
"""Options of outputs that tell of one stream; with this in their names, they tell of several, each in a file."""
_OF_FILES = ("activitynet", "mot")
"""Those that cannot tell of live sources."""
_STREAM = "{stream}"


def make_sinks(args: argparse.Namespace, specs: Sequence[SourceSpec], graph: Graph) -> list[Sink]:
    """The sinks that the options ask for; no two may write the same file, none a source.

    Raises:
        UsageError: they may not, or an output cannot tell of what is watched.
    """
    chosen = {option: _per_stream(option, getattr(args, option), specs, graph) for option in _OF_ONE_STREAM}
    paths = [args.events] if args.events and args.events != "-" else []
    _check_paths([*paths, *(path for files in chosen.values() for path in files.values())], specs)
    sinks: list[Sink] = []
    if args.events:
        from ..sinks.jsonl import JsonlSink

        sinks.append(JsonlSink(args.events, canonical=args.canonical))
    for option, files in chosen.items():
        make = _MAKERS[option]
        for stream, path in files.items():
            sink = make(path, graph)
            sink.stream = stream  # also where it is the only one: another camera may be added
            sinks.append(sink)
    return sinks


def make_clips(args: argparse.Namespace) -> ClipSettings | None:
    """Which events get clips, None where none was asked for.

    Raises:
        UsageError: there are no clips of such events, or the size is none.
    """
    if not args.clips:
        return None
    kinds = tuple(kind.strip() for kind in args.clip_of.split(",") if kind.strip())
    return ClipSettings(args.clips, kinds, _size(args.clips_keep))


def _size(text: str) -> int:
    """Bytes of a size such as `500MB`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UsageError(f"--clips-keep takes a size such as 500MB or 2GB, not {text!r}.")
    return int(float(match[1]) * 1000.0 ** " KMGT".index(match[2].upper() or " "))


def _per_stream(option: str, path: str | None, specs: Sequence[SourceSpec], graph: Graph) -> dict[str, str]:
    """The file of each stream that an output tells of.

    Raises:
        UsageError: it has one name for several streams, or cannot tell of live ones.
    """
    if not path:
        return {}
    if option in _OF_FILES and graph.live:
        raise UsageError(f"--{option} tells of a file from its start to its end; for a live source write --events.")
    if len(specs) > 1 and _STREAM not in path:
        stem, suffix = os.path.splitext(path)
        raise UsageError(
            f"--{option} tells of one source; for several write one file each, "
            f"as in --{option} '{stem}-{_STREAM}{suffix}', or write --events."
        )
    return {spec.stream: path.replace(_STREAM, spec.stream) for spec in specs}


def _check_paths(paths: Sequence[str], specs: Sequence[SourceSpec]) -> None:
    taken = {os.path.realpath(spec.uri): "the source" for spec in specs}
    for path in paths:
        real = os.path.realpath(path)
        if real in taken:
            raise UsageError(f"{path!r} would overwrite {taken[real]}; choose another path.")
        taken[real] = "another output"


def _vtt(path: str, graph: Graph) -> Sink:
    from ..sinks.subtitles import WebVttSink

    return WebVttSink(path)


def _srt(path: str, graph: Graph) -> Sink:
    from ..sinks.subtitles import SrtSink

    return SrtSink(path)


def _activitynet(path: str, graph: Graph) -> Sink:
    from ..sinks.activitynet import ActivityNetSink

    return ActivityNetSink(path)


def _mot(path: str, graph: Graph) -> Sink:
    if not any(node.use == "object_tracker" for node in graph.nodes):
        raise UsageError("--mot needs a graph that follows objects: add --graph objects.")
    from ..sinks.mot import MotSink

    return MotSink(path, video_stream=_setting(graph, "decode", "video_stream", None))


def _report(path: str, graph: Graph) -> Sink:
    from ..sinks.report import ReportSink

    return ReportSink(path, model=_setting(graph, "clip_tower", "model", ""))


def _video(path: str, graph: Graph) -> Sink:
    if Path(path).suffix.lower() != ".mp4":
        raise UsageError(f"--video writes MP4; {path!r} should end in .mp4.")
    fps = float(_setting(graph, "live" if graph.live else "decode", "fps", 2.0) or 25.0)  # null: every frame
    delay = _video_delay(graph, fps)
    if graph.live:
        from ..sinks.live_video import LiveVideoSink

        return LiveVideoSink(path, delay=delay, rate=_setting(graph, "live", "fps", None))
    from ..sinks.video import VideoSink

    return VideoSink(path, delay=delay, period=1 / fps, video_stream=_setting(graph, "decode", "video_stream", None))


def _video_delay(graph: Graph, fps: float) -> float:
    """Seconds that a video has to wait until all that stands on its frames has been told, and a little more."""
    caption = 2.0 * float(_setting(graph, "git_captioner", "interval", 0.0))  # one interval after its span began
    # A detection may be told as late as with the next one of the same object, which may be a whole window later.
    window: int = _setting(graph, "object_tracker", "window", 0) + _setting(graph, "object_tracker", "delay", 0)
    track = 1.25 * window / fps + 2.0 * float(_setting(graph, "object_tracker", "update_every", 0.0))
    return max(12.0, caption, track)


_MAKERS: dict[str, Callable[[str, Graph], Sink]] = {
    "vtt": _vtt,
    "srt": _srt,
    "activitynet": _activitynet,
    "mot": _mot,
    "report": _report,
    "video": _video,
}


def _setting(graph: Graph, use: str, key: str, default: Any) -> Any:
    """A setting of the first node that uses this operator."""
    return next((getattr(node.config, key) for node in graph.nodes if node.use == use), default)
