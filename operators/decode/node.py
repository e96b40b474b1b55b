"""The file decoder as a source of the graph."""

from __future__ import annotations

from pydantic import Field

from ..contract import Config, Context, End, Source, SourceInfo, SourceOutputs
from ..packets import Frame, Packet
from .container import ThreadType
from .file_packets import file_frame, file_info
from .pixels import RGB
from .video import Cursor, DecodedFrame, VideoReader, open_video

__all__ = ["VideoSource", "VideoSourceConfig"]


class VideoSourceConfig(Config):
    """What to take from a video file."""

    fps: float | None = Field(2.0, gt=0, description="samples per second of media time; null for every frame")
    width: int = Field(224, ge=1, description="width of `frames` in pixels; the picture is squashed to it")
    height: int = Field(224, ge=1, description="height of `frames` in pixels")
    preview: int = Field(180, ge=2, description="short side of `previews`, which keep the aspect ratio")
    video_stream: int | None = Field(None, ge=0, description="number among the video streams; null for the best")
    thread_type: ThreadType = Field("SLICE", description="how the video decoder may use threads")
    threads: int = Field(0, ge=0, description="decoder threads; 0 for one per core")
    chunk: int = Field(8, ge=1, description="frames handed over at a time")


class VideoSource(Source[Cursor]):
    """Reads a local video file: sampled frames at the size of the models, on request with previews for people.

    The cursor is a plain value; a source opened elsewhere on the same file goes on from it with the same frames.
    """

    Config = VideoSourceConfig
    outputs = {"frames": Frame, "previews": Frame}

    config: VideoSourceConfig
    _reader: VideoReader | None = None
    _interrupted = False
    _previews = False
    """Whether anything reads the previews; nobody makes them else."""

    def open(self, context: Context) -> SourceInfo:
        """Decode as far as the first frame.

        Raises:
            SourceError: the file cannot deliver a single frame.
        """
        self._previews = context.wants("previews")
        reader = self._reader = self._open_at(Cursor())
        return file_info(self.stream, reader.info)

    def initial_cursor(self) -> Cursor:
        """Return the beginning of the file."""
        return Cursor()

    def read(self, cursor: Cursor) -> tuple[Cursor, SourceOutputs]:
        """Deliver up to `chunk` samples after the cursor; with the end of the file comes `End`."""
        reader = self._at(cursor)
        frames: list[Packet] = []
        previews: list[Packet] = []
        for sample in reader:
            frames.append(self._packet(sample, sample.pixels))
            if sample.preview is not None:
                previews.append(self._packet(sample, sample.preview))
            if len(frames) == self.config.chunk:
                break
        out = SourceOutputs(packets={"frames": frames}, counters=self._counters(reader))
        if self._previews:
            out.packets["previews"] = previews
        if reader.end is not None:
            out.end = End(reader.end.reason, reader.end.t_end)
            out.watermark = reader.end.t_end
        elif frames:
            out.watermark = frames[-1].t
        return reader.cursor, out

    def interrupt(self) -> None:
        """End the stream before the next frame. May be called from any thread."""
        self._interrupted = True
        if self._reader is not None:
            self._reader.interrupt()

    def close(self) -> None:
        """Close the file; only the reading thread may."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open_at(self, cursor: Cursor) -> VideoReader:
        config = self.config
        return open_video(
            self.uri,
            rate=config.fps,
            size=(config.height, config.width),
            preview=config.preview if self._previews else None,
            video_stream=config.video_stream,
            thread_type=config.thread_type,
            threads=config.threads,
            cursor=cursor,
        )

    def _at(self, cursor: Cursor) -> VideoReader:
        """Return the reader standing at `cursor`; reopens the file where the engine went to another place."""
        if self._reader is None or self._reader.cursor != cursor:
            self.close()
            self._reader = self._open_at(cursor)
        if self._interrupted:
            self._reader.interrupt()
        return self._reader

    def _packet(self, sample: DecodedFrame, pixels: RGB) -> Frame:
        assert self._reader is not None
        return file_frame(self.stream, self._reader.info, sample.t, sample.index, pixels)

    @staticmethod
    def _counters(reader: VideoReader) -> dict[str, int]:
        counts = reader.counts
        return {
            "frames_in": counts.decoded,
            "frames_sampled": counts.sampled,
            "frames_unsampled": counts.unsampled,
            "frames_dropped_non_increasing": counts.non_increasing,
            "frames_dropped_before_zero": counts.before_zero,
            "pts_inferred": counts.inferred_pts,
            "clock_jumps": counts.clock_jumps,
            "packets_corrupt": counts.corrupt_packets,
        }
