"""What the sink tests share: hand-made events and packets, and ways to look at what sinks wrote."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from onlooker.operators.contract import End, SourceInfo
from onlooker.operators.events import Event, make_event
from onlooker.operators.packets import Frame, Scores
from onlooker.pipeline.sinks.base import Sink

INFO = SourceInfo("clip", 0, 320, 180, duration=60.0)


def caption(no: int, start: float, end: float, text: str, stream: str = "clip") -> Event:
    return make_event(
        "caption",
        stream=stream,
        epoch=0,
        event_no=no,
        rev=0,
        phase="end",
        t_start=start,
        t_end=end,
        t_seen=end,
        score=-0.5,
        text=text,
    )


def query(no: int, start: float, end: float | None, text: str, *, rev: int = 0, seen: float | None = None) -> Event:
    return make_event(
        "query",
        stream="clip",
        epoch=0,
        event_no=no,
        rev=rev,
        phase="new" if end is None else "end",
        t_start=start,
        t_end=end,
        t_seen=seen if seen is not None else (start if end is None else end),
        score=0.3,
        query=text,
    )


def preview(t: float, index: int, pixels: Any = None) -> Frame:
    if pixels is None:
        pixels = np.full((18, 32, 3), index % 256, np.uint8)
    return Frame("clip", 0, t, pixels, index, (320, 180))


def scores(t: float, names: Sequence[str], values: Sequence[float]) -> Scores:
    return Scores("clip", 0, t, tuple(names), np.asarray(values, np.float32))


def started(sink: Sink, uri: str = "clip.mp4", info: SourceInfo = INFO) -> Sink:
    sink.open()
    sink.start(info, uri)
    return sink


def complete(sink: Sink, t: float) -> None:
    sink.finish("clip", End("complete", t))
    sink.close()


def rss() -> int:
    """Resident bytes of this process."""
    return int(psutil.Process().memory_info().rss)


class small_files:
    """No file may grow beyond `limit` bytes meanwhile: writing then fails as on a full disk (EFBIG)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._limit, self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def files_beside(path: Path) -> list[str]:
    """Everything in the folder of `path` but itself: what a sink left lying about."""
    return sorted(p.name for p in path.parent.iterdir() if p != path)
