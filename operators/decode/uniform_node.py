"""A file as a fixed number of frames at equal distances, as a source of the graph."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..contract import Config, Context, End, Source, SourceInfo, SourceOutputs
from ..packets import Frame, Packet
from .errors import SourceError
from .pixels import RGB, preview_size
from .random_access import VideoIndex, uniform_indices

__all__ = ["UniformSource", "UniformSourceConfig"]


class UniformSourceConfig(Config):
    """What to take from a video file."""

    frames: int = Field(64, ge=1, le=4096, description="frames taken of the whole file, first and last included")
    width: int = Field(224, ge=1, description="width of `frames` in pixels; the picture is squashed to it")
    height: int = Field(224, ge=1, description="height of `frames` in pixels")
    preview: int = Field(180, ge=2, description="short side of `previews`, which keep the aspect ratio")
    video_stream: int | None = Field(None, ge=0, description="number among the video streams; null for the best")
    chunk: int = Field(8, ge=1, description="frames handed over at a time")


class UniformSource(Source[int]):
    """Reads T frames at equal distances from a local video file (Streaming DVC's evaluation; see `uniform_indices`).

    A video with fewer frames repeats them; a repeated frame comes a microsecond after the one before it, so that times
    increase. The cursor is the number of frames delivered.
    """

    Config = UniformSourceConfig
    outputs = {"frames": Frame, "previews": Frame}

    config: UniformSourceConfig
    _previews = False
    _interrupted = False

    def open(self, context: Context) -> SourceInfo:
        """Read where the frames of the file lie.

        Raises:
            SourceError: the file cannot deliver a single frame.
        """
        self._previews = context.wants("previews")
        self._index = VideoIndex(self.uri, video_stream=self.config.video_stream)
        if not len(self._index):
            raise SourceError("no_frames", f"{Path(self.uri).name}: no frame can be decoded")
        self._numbers = uniform_indices(len(self._index), self.config.frames)
        self._times = _increasing(self._index.times[self._numbers])
        info = self._index.info
        return SourceInfo(
            stream=self.stream,
            epoch=0,
            width=info.width,
            height=info.height,
            duration=info.duration,
            wall_zero=info.creation_time,
            time_source="file",
        )

    def initial_cursor(self) -> int:
        """Return the first frame."""
        return 0

    def read(self, cursor: int) -> tuple[int, SourceOutputs]:
        """Deliver up to `chunk` frames; with the last of them comes `End`."""
        if self._interrupted:
            t = float(self._times[cursor - 1]) if cursor else 0.0
            return cursor, SourceOutputs(end=End("interrupted", t), watermark=t)
        config, info = self.config, self._index.info
        after = min(cursor + config.chunk, len(self._numbers))
        numbers = self._numbers[cursor:after]
        out = SourceOutputs(
            packets={"frames": self._packets(cursor, self._index.frames(numbers, (config.height, config.width)))},
            counters={"frames_in": len(self._index), "frames_sampled": after},
            watermark=float(self._times[after - 1]),
        )
        if self._previews:
            size = preview_size(info.height, info.width, info.pixel_aspect, config.preview)
            out.packets["previews"] = self._packets(cursor, self._index.frames(numbers, size))
        if after == len(self._numbers):
            end = self._index.end
            out.end = End(end.reason, max(end.t_end, float(self._times[-1])))
            out.watermark = out.end.t
        return after, out

    def interrupt(self) -> None:
        """End the stream before the next chunk. May be called from any thread."""
        self._interrupted = True

    def _packets(self, first: int, pixels: RGB) -> list[Packet]:
        info = self._index.info
        return [
            Frame(
                stream=self.stream,
                epoch=0,
                t=float(self._times[first + row]),
                pixels=picture,
                index=first + row,
                source_size=(info.width, info.height),
            )
            for row, picture in enumerate(pixels)
        ]


def _increasing(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Times (T,) that never decrease, moved by at most a few microseconds where they stand still."""
    out = times.copy()
    for index in range(1, len(out)):
        if out[index] <= out[index - 1]:
            out[index] = max(out[index - 1] + 1e-6, math.nextafter(out[index - 1], math.inf))
    return out
