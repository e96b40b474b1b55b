"""One self-contained HTML file about a stream: timeline, captions, query curves and key frames.

While the stream runs, everything that grows goes to a spool folder beside the output: settled events as lines, key
frames as JPEG files, thinned to a fixed number. Curves stay in memory in bounded space. ``close`` streams the page out
of the spool.

Times are media time; of live streams seconds since watching began.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TextIO

from PIL import Image

from onlooker.operators.contract import End, SourceInfo
from onlooker.operators.events import CaptionData, Event, QueryData, StreamData
from onlooker.operators.packets import Frame, Packet, Scores

from .output import StreamFileSink, replace_file
from .paths import Seen
from .report_objects import ObjectList
from .report_page import Caption, Moment, PageData, Picture, write_page
from .thinning import Curve, EvenSample

__all__ = ["ReportSink"]

_JPEG_QUALITY = 80


@dataclass
class _KeyFrame:
    t: float
    file: Path
    width: int
    height: int
    boxes: list[Seen] = field(default_factory=list)
    """The objects on it, which are told after it came by."""


class ReportSink(StreamFileSink):
    """Writes the report when the run ends; until then an older report stays in place."""

    ports: ClassVar[tuple[str, ...]] = ("previews", "scores")

    def __init__(self, path: str | Path, max_frames: int = 300, model: str = "") -> None:
        """Remember where to write.

        Args:
            path: the HTML file.
            max_frames: key frames in the report, thinned evenly over the stream.
            model: what the header says about the model.
        """
        super().__init__(path)
        self._model = model
        self._frames: EvenSample[_KeyFrame] = EvenSample(max_frames, self._drop_frame)
        self._frames_at: dict[int, _KeyFrame] = {}
        """The same by their times, in milliseconds."""
        self._objects = ObjectList()
        self._curves: dict[str, Curve] = {}
        self._open_queries: dict[str, Moment] = {}
        self._counts = {"caption": 0, "query": 0}
        self._spooled = 0
        self._reached = 0.0
        self._size = (0, 0)
        self._end: End | None = None

    def _begin(self, info: SourceInfo, uri: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f".{self.path.name}-", dir=self.path.resolve().parent)
        self._spool = Path(self._folder.name)
        self._captions = (self._spool / "captions.jsonl").open("w", encoding="utf-8")
        self._moments = (self._spool / "queries.jsonl").open("w", encoding="utf-8")

    def packets(self, port: str, packets: Sequence[Packet]) -> None:
        """Take in key frames and scores. See ``Sink.packets``."""
        for packet in packets:
            if isinstance(packet, Frame):
                self._size = packet.source_size
                self._frames.offer(partial(self._spool_frame, packet))
            elif isinstance(packet, Scores):
                for name, value in zip(packet.names, packet.values.tolist(), strict=True):
                    self._curves.setdefault(name, Curve()).add(self._zero + packet.t, value)
            self._reached = max(self._reached, self._zero + packet.t)

    def _spool_frame(self, frame: Frame) -> _KeyFrame:
        file = self._spool / f"{self._spooled}.jpg"
        self._spooled += 1
        Image.fromarray(frame.pixels).save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
        height, width = frame.pixels.shape[:2]
        made = _KeyFrame(self._zero + frame.t, file, width, height)
        self._frames_at[round(1000 * made.t)] = made
        return made

    def _drop_frame(self, frame: _KeyFrame) -> None:
        self._frames_at.pop(round(1000 * frame.t), None)
        frame.file.unlink(missing_ok=True)

    def _boxes_at(self, t: float) -> list[Seen] | None:
        """The boxes of the key frame at ``t``; objects are seen in the very frames that the previews are of."""
        frame = self._frames_at.get(round(1000 * t))
        return None if frame is None else frame.boxes

    def event(self, event: Event) -> None:
        """Spool what is settled, remember the queries that are open. See ``Sink.event``."""
        data = event.data
        # The events of a live stream about itself stand on the one line of time already.
        zero = 0.0 if isinstance(data, StreamData) else self._zero
        self._reached = max(self._reached, zero + data.t_seen)
        self._objects.add(event, zero, self._boxes_at)
        t_start, t_end = zero + data.t_start, None if data.t_end is None else zero + data.t_end
        if isinstance(data, QueryData):
            moment = Moment(data.query, t_start, t_end, data.score)
            self._open_queries[data.event_id] = moment
            if event.phase == "end":
                del self._open_queries[data.event_id]
                self._counts["query"] += 1
                _append(self._moments, [moment.query, moment.t_start, moment.t_end, moment.score])
        elif isinstance(data, CaptionData) and event.phase == "end" and t_end is not None:
            self._counts["caption"] += 1
            _append(self._captions, [t_start, t_end, data.text])

    def finish(self, stream: str, end: End) -> None:
        """Note how the stream ended. See ``Sink.finish``."""
        self._end = end

    def _complete(self) -> None:
        try:
            self._captions.close()
            self._moments.close()
            assert self.info is not None
            page = PageData(
                info=self.info,
                size=self._size if self.info.live else (self.info.width, self.info.height),
                model=self._model,
                status=self._end.reason if self._end else "interrupted",
                duration=self._duration(),
                captions=self._read_captions,
                moments=self._read_moments,
                caption_count=self._counts["caption"],
                moment_count=self._counts["query"] + len(self._open_queries),
                curves={name: curve.points() for name, curve in self._curves.items()},
                pictures=[Picture(f.t, f.width, f.height, f.file, f.boxes) for f in self._frames.items],
                objects=self._objects.items(),
                object_count=len(self._objects),
            )
            replace_file(self.path, lambda file: write_page(file, page))
        finally:
            self._folder.cleanup()

    def _duration(self) -> float:
        """Seconds that the timeline spans: to the end of what was processed."""
        t = self._end.t if self._end and self.info and not self.info.live else self._reached
        return max(t if math.isfinite(t) else self._reached, 1e-3)

    def _read_captions(self) -> Iterator[Caption]:
        for t_start, t_end, text in _lines(self._spool / "captions.jsonl"):
            yield Caption(t_start, t_end, text)

    def _read_moments(self) -> Iterator[Moment]:
        for line in _lines(self._spool / "queries.jsonl"):
            yield Moment(*line)
        yield from self._open_queries.values()


def _append(file: TextIO, record: list[object]) -> None:
    file.write(json.dumps(record) + "\n")


def _lines(file: Path) -> Iterator[list[Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
