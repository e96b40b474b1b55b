"""A file as a fixed number of frames at equal distances, as a source of the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..contract import Config, Context, End, Source, SourceInfo, SourceOutputs
from ..packets import Frame, Packet
from .errors import SourceError
from .file_packets import file_frame, file_info
from .pixels import RGB, preview_size
from .random_access import VideoIndex, uniform_indices

__all__ = ["UniformSource", "UniformSourceConfig"]

_READ_AHEAD = 64


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
        self._held, self._held_from = {"frames": np.zeros((0, 0, 0, 3), np.uint8)}, 0
        return file_info(self.stream, self._index.info)

    def initial_cursor(self) -> int:
        """Return the first frame."""
        return 0

    def read(self, cursor: int) -> tuple[int, SourceOutputs]:
        """Deliver up to `chunk` frames; with the last of them comes `End`."""
        if self._interrupted:
            t = float(self._times[cursor - 1]) if cursor else 0.0
            return cursor, SourceOutputs(end=End("interrupted", t), watermark=t)
        after = min(cursor + self.config.chunk, len(self._numbers))
        pictures = self._ahead(cursor, after)
        out = SourceOutputs(
            packets={port: self._packets(cursor, after, pixels) for port, pixels in pictures.items()},
            counters={"frames_in": len(self._index), "frames_sampled": after},
            watermark=float(self._times[after - 1]),
        )
        if after == len(self._numbers):
            end = self._index.end
            out.end = End(end.reason, max(end.t_end, float(self._times[-1])))
            out.watermark = out.end.t
        return after, out

    def interrupt(self) -> None:
        """End the stream before the next chunk. May be called from any thread."""
        self._interrupted = True

    def _ahead(self, first: int, after: int) -> dict[str, RGB]:
        """Pictures of the frames [first, after) by port.

        Every call of the index opens the file anew, so more frames than a chunk are read at a time.
        """
        begin = self._held_from
        if not (begin <= first and after <= begin + len(self._held["frames"])):
            config, info = self.config, self._index.info
            numbers = self._numbers[first : max(after, first + _READ_AHEAD)]
            self._held = {"frames": self._index.frames(numbers, (config.height, config.width))}
            if self._previews:
                size = preview_size(info.height, info.width, info.pixel_aspect, config.preview)
                self._held["previews"] = self._index.frames(numbers, size)
            begin = self._held_from = first
        return {port: pixels[first - begin : after - begin] for port, pixels in self._held.items()}

    def _packets(self, first: int, after: int, pixels: RGB) -> list[Packet]:
        info = self._index.info
        return [
            file_frame(self.stream, info, float(self._times[index]), index, picture)
            for index, picture in zip(range(first, after), pixels, strict=True)
        ]


def _increasing(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Times (T,) that never decrease, moved by at most a few microseconds where they stand still."""
    out = times.copy()
    for index in range(1, len(out)):
        if out[index] <= out[index - 1]:
            out[index] = out[index - 1] + 1e-6
    return out
