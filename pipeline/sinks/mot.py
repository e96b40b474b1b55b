"""Tracks in the text format of MOTChallenge, which its evaluation tools and most tracking programs read.

One row for each object in each frame that was looked at: ``frame,id,x,y,width,height,conf,-1,-1,-1``. Frames are those
of the source, counted from 1; ids are the tracks' numbers plus 1, since the format counts from 1; x and y are the
distance of the box from the left and the top in pixels of the source, as it is shown.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import BinaryIO

import numpy as np

from onlooker.operators.contract import SourceInfo
from onlooker.operators.decode.errors import SourceError
from onlooker.operators.decode.random_access import VideoIndex
from onlooker.operators.events import Event, TrackData

from ..errors import OutputError
from .output import AppendFile, StreamFileSink, replace_file

__all__ = ["MotSink"]


class MotSink(StreamFileSink):
    """Rows of one file's tracks. They are written as they are told, and put in order of frame and id at the end."""

    def __init__(self, path: str | Path, *, video_stream: int | None = None) -> None:
        """Remember where to write.

        Args:
            path: the text file.
            video_stream: number among the file's video streams, as the source was told; None for libav's best choice.
        """
        super().__init__(path)
        self._video_stream = video_stream
        self._file: AppendFile | None = None
        self._until: dict[str, float] = {}
        """Of each open track, the time of its last row."""

    def event(self, event: Event) -> None:
        """Write the rows that are new in a track event. See ``Sink.event``."""
        data = event.data
        if not isinstance(data, TrackData):
            return
        assert self._file is not None, "event before start"
        points = data.points_after(self._until.get(data.event_id))
        if points:
            self._until[data.event_id] = max(self._until.get(data.event_id, 0.0), points[-1].t)
        if event.phase == "end":
            self._until.pop(data.event_id, None)
        score = 1.0 if data.score is None else data.score
        rows = []
        for t, x0, y0, x1, y1 in points:
            left, top, right, bottom = x0 * self._width, y0 * self._height, x1 * self._width, y1 * self._height
            frame, number = self._frame_number(t), event.event_no + 1
            rows.append(f"{frame},{number},{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f},{score:.4f}")
        if rows:
            self._file.append("".join(f"{row},-1,-1,-1\n" for row in rows).encode())

    def _frame_number(self, t: float) -> int:
        """Number of the frame at media time ``t``, which events round to the microsecond."""
        return min(int(np.searchsorted(self._times, t - 1e-6)), len(self._times) - 1) + 1

    def _begin(self, info: SourceInfo, uri: str) -> None:
        try:
            self._times = VideoIndex(uri, video_stream=self._video_stream, backend="pyav").times
        except SourceError as error:
            raise OutputError(
                f"cannot number the frames of {info.stream!r}: the source must be a file that can be read twice "
                f"({error})."
            ) from None
        self._width, self._height = info.width, info.height
        self._file = AppendFile(self.path)

    def _complete(self) -> None:
        assert self._file is not None
        self._file.close()
        replace_file(self.path, self._write_in_order)

    def _write_in_order(self, target: BinaryIO) -> None:
        frames, numbers, begins = array("q"), array("q"), array("q")
        with self.path.open("rb") as rows:
            begin = 0
            for row in rows:
                frame, number, _ = row.split(b",", 2)
                for column, value in zip((frames, numbers, begins), (int(frame), int(number), begin), strict=True):
                    column.append(value)
                begin += len(row)
            for i in np.lexsort((np.asarray(numbers), np.asarray(frames))).tolist():
                rows.seek(begins[i])
                target.write(rows.readline())
