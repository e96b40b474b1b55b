"""Reading a video file in order: sampled, resized, on one clock, resumable.

Example::

    with open_video("talk.mp4", rate=2, size=(224, 224)) as video:
        for frame in video:
            use(frame.t, frame.pixels)
    print(video.end.reason, video.end.t_end)
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
from av.video.frame import VideoFrame

from .container import RawVideo, ThreadType
from .errors import SourceError
from .pixels import RGB, Orientation, PixelConverter, preview_size
from .timeline import FrameClock, FrameCounts, SampleGrid, clock_rule

__all__ = ["Cursor", "DecodedFrame", "EndOfVideo", "VideoInfo", "VideoReader", "open_video"]

# A stream without any rate has its frame durations guessed; 25 is what libav assumes too.
_FALLBACK_RATE = Fraction(25)
# How much earlier than declared a stream may end and still count as whole.
_SHORT_END_SECONDS = 1.0
# The zero of the MP4 clock (1904) and other unset dates lie before any digital video.
_OLDEST_CREATION = datetime(1980, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known once the first frame has been decoded."""

    name: str
    """File name without its folder."""
    format: str
    """libav's name of the container, e.g. `mov,mp4,m4a,3gp,3g2,mj2`."""
    codec: str
    stream_index: int
    """Index of the chosen stream among all streams of the file."""
    video_streams: int
    """How many video streams the file holds."""
    width: int
    """Pixels as shown, after rotation."""
    height: int
    orientation: Orientation
    """How stored pixels are turned to be shown; already applied to everything delivered."""
    pixel_aspect: float
    """Width of a shown pixel over its height; 1.0 for square pixels."""
    average_rate: float | None
    """Frames per second, where the container or libav's estimate gives it."""
    duration: float | None
    """Seconds as declared by the file; a truncated file delivers less."""
    start: float
    """Media time of the first frame, seconds; not zero where a file starts late."""
    creation_time: float | None
    """Unix time the file says it was recorded at, seconds."""
    is_image: bool
    """A single picture: one frame at 0, which lasts one sampling period (1 s without a rate)."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedFrame:
    """One sampled frame."""

    t: float
    """Media time in seconds."""
    index: int
    """Number of this sample: 0, 1, 2 ..."""
    pixels: RGB
    """(H, W, 3) uint8 RGB at the asked size, upright."""
    preview: RGB | None = None
    """(h, w, 3) uint8 RGB with square pixels and the picture's own aspect, if asked for."""


@dataclass(frozen=True, slots=True)
class EndOfVideo:
    """How a video ended."""

    reason: Literal["complete", "truncated", "interrupted"]
    t_end: float
    """Where the last frame ends: its time plus its duration, seconds."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader stands: just after a sample. Plain values, so that another process can go on from it."""

    index: int = 0
    """Samples delivered so far."""
    ticks: int | None = None
    """Media time of the last one in units of `time_base`; None before the first."""
    time_base: Fraction | None = None
    """The stream's unit of time in seconds."""
    counts: FrameCounts = field(default_factory=FrameCounts)


def open_video(
    path: str | Path,
    *,
    rate: float | Fraction | None = 2.0,
    size: tuple[int, int] | None = None,
    preview: int | None = None,
    video_stream: int | None = None,
    thread_type: ThreadType = "SLICE",
    threads: int = 0,
    cursor: Cursor | None = None,
) -> VideoReader:
    """Open a local video file and decode as far as its first frame.

    Args:
        path: A regular file in any container and codec that libav reads; a single picture counts as a video.
        rate: Samples per second of media time: for each k the first frame at or after k / rate. None: every frame.
        size: (height, width) to squash samples to; None keeps the shown size of the first frame.
        preview: Short side of an additional picture with its aspect kept; None for no preview.
        video_stream: Number among the video streams; None for libav's best choice.
        thread_type: How libav's decoder may use threads. Results do not depend on it.
        threads: Decoder threads, 0 for one per core.
        cursor: Go on after this point of an earlier reader with the same `rate` and `video_stream`.

    Raises:
        SourceError: the file cannot deliver a single frame, or is not the one the cursor was made with.
        ValueError: an argument is out of range.
    """
    return VideoReader(path, rate, size, preview, video_stream, thread_type, threads, cursor or Cursor())


class VideoReader:
    """Iterator over the sampled frames of one file, made by `open_video`. Use it from one thread."""

    def __init__(
        self,
        path: str | Path,
        rate: float | Fraction | None,
        size: tuple[int, int] | None,
        preview: int | None,
        video_stream: int | None,
        thread_type: ThreadType,
        threads: int,
        cursor: Cursor,
    ) -> None:
        """See `open_video`."""
        self._rate = rate
        self._open_args = (path, video_stream, thread_type, threads)
        self._interrupted = threading.Event()
        self.end: EndOfVideo | None = None
        """Set once the iteration has come to its end."""
        self._raw = RawVideo(*self._open_args, FrameCounts())
        try:
            self._start()
            first_ticks, first = self._first()
            self.info = self._describe(first_ticks, first)
            self._make_converters(first, size, preview)
            if cursor.index:
                self._go_to(cursor)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Return itself: a reader is walked through once."""
        return self

    def __next__(self) -> DecodedFrame:
        """Deliver the next sample."""
        sample = self._next_sample()
        if sample is None:
            raise StopIteration
        return self._deliver(*sample)

    @property
    def counts(self) -> FrameCounts:
        """What became of the frames decoded so far."""
        return self._raw.counts

    def skip(self) -> float | None:
        """Pass over the next sample without converting it: its media time in seconds, None at the end."""
        sample = self._next_sample()
        return None if sample is None else self._seconds(sample[0])

    def next_from(self, t: float) -> DecodedFrame | None:
        """Deliver the next sample at or after media time `t` in seconds, None at the end."""
        while (sample := self._next_sample()) is not None:
            if self._seconds(sample[0]) >= t:
                return self._deliver(*sample)
        return None

    def interrupt(self) -> None:
        """End the iteration before the next frame, with reason `interrupted`. May be called from any thread."""
        self._interrupted.set()

    def close(self) -> None:
        """Close the file. Only the thread that iterates may call this: libav is not safe against anything else."""
        self._raw.close()

    def __enter__(self) -> VideoReader:
        """Return itself, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    # ---- time and sampling

    def _start(self) -> None:
        """Set clock, grid and cursor for a container that stands at its beginning."""
        stream = self._raw.stream
        self._time_base = stream.time_base or Fraction(1, 90_000)
        period = 1 / (stream.average_rate or stream.guessed_rate or _FALLBACK_RATE)
        if self._raw.is_image:
            # Its one PTS is 0 in any unit; this one makes the period a whole number of ticks.
            period = self._time_base = 1 / Fraction(self._rate or 1).limit_denominator(1_000_000)
        self._nominal_ticks = round(period / self._time_base)
        self._rule = clock_rule(self._raw.container.format.name)
        self._position_at(Cursor())
        self._samples = self._walk(self._raw.frames())

    def _position_at(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._raw.counts = replace(cursor.counts)
        self._clock = FrameClock(self._rule, self._time_base, self._nominal_ticks, self.counts, cursor.ticks)
        self._grid = SampleGrid(self._rate, self._time_base, cursor.ticks)

    def _walk(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (ticks, frame) of the samples among decoded frames, and count all of them."""
        for frame in frames:
            if self._interrupted.is_set():
                return
            self.counts.decoded += 1
            # A picture's own duration is libav's 1/25 s, which means nothing.
            duration = None if self._raw.is_image else frame.duration
            ticks = self._clock.place(frame.pts, frame.dts, duration)
            if ticks is None:
                continue
            if self._grid.take(ticks):
                self.counts.sampled += 1
                yield ticks, frame
            else:
                self.counts.unsampled += 1

    def _next_sample(self) -> tuple[int, VideoFrame] | None:
        if self.end is not None:
            return None
        sample = None if self._interrupted.is_set() else next(self._samples, None)
        if sample is None:
            self._finish()
        else:
            self.cursor = self._after(sample[0])
        return sample

    def _after(self, ticks: int) -> Cursor:
        return Cursor(self.cursor.index + 1, ticks, self._time_base, replace(self.counts))

    def _deliver(self, ticks: int, frame: VideoFrame) -> DecodedFrame:
        return DecodedFrame(
            t=self._seconds(ticks),
            index=self.cursor.index - 1,
            pixels=self._convert(frame),
            preview=self._convert_preview(frame) if self._convert_preview else None,
        )

    def _finish(self) -> None:
        t_end = self._seconds(self._clock.end)
        reason: Literal["complete", "truncated", "interrupted"] = "complete"
        if self._interrupted.is_set():
            reason = "interrupted"
        elif self._raw.truncated(t_end, max(_SHORT_END_SECONDS, 2 * self._seconds(self._nominal_ticks))):
            reason = "truncated"
        self.end = EndOfVideo(reason, t_end)

    def _seconds(self, ticks: int) -> float:
        return ticks * self._time_base.numerator / self._time_base.denominator

    # ---- opening and resuming

    def _first(self) -> tuple[int, VideoFrame]:
        """Return the first sample and leave it in the queue."""
        rest = self._samples
        sample = next(rest, None)
        if sample is None:
            raise SourceError(
                "no_frames",
                f"{self._raw.name}: holds a video stream but not one frame that can be decoded; "
                "was the recording or the copy finished?",
            )

        def again() -> Iterator[tuple[int, VideoFrame]]:
            yield sample
            yield from rest

        self._samples = again()
        return sample

    def _go_to(self, cursor: Cursor) -> None:
        """Stand just after the cursor's sample, so that the following frames are those of an uninterrupted read."""
        if cursor.time_base != self._time_base:
            raise self._changed(cursor)
        if not (self._raw.seekable and cursor.ticks is not None and self._seek(cursor, cursor.ticks)):
            self._read_up_to(cursor)

    def _seek(self, cursor: Cursor, ticks: int) -> bool:
        """Jump to a key frame and decode up to the cursor's sample; False, and back at the start, if it is not met."""
        frames = self._raw.frames()
        try:
            self._raw.seek(ticks)
            found = next((f for f in frames if f.pts is None or f.pts >= ticks), None)
        except av.error.FFmpegError:
            found = None
        if found is None or found.pts != ticks:
            self._raw.close()
            self._raw = RawVideo(*self._open_args, FrameCounts())
            self._start()
            return False
        self._position_at(cursor)
        self._clock.end = ticks + (found.duration or self._nominal_ticks)
        self._samples = self._walk(frames)
        return True

    def _read_up_to(self, cursor: Cursor) -> None:
        ticks = None
        while self.cursor.index < cursor.index:
            sample = next(self._samples, None)
            if sample is None:
                break
            ticks = sample[0]
            self.cursor = self._after(ticks)
        if ticks != cursor.ticks:
            raise self._changed(cursor)

    def _changed(self, cursor: Cursor) -> SourceError:
        return SourceError(
            "changed",
            f"{self._raw.name}: cannot go on after sample {cursor.index}: it is not where it was; "
            "the file or the sampling rate has changed, start from the beginning",
        )

    def _describe(self, ticks: int, frame: VideoFrame) -> VideoInfo:
        stream, container = self._raw.stream, self._raw.container
        self._orientation = Orientation.of(frame)
        height, width = self._orientation.shown_size(frame.height, frame.width)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        self._pixel_aspect = 1 / aspect if self._orientation.transpose else aspect
        duration = None
        if self._raw.is_image:
            duration = self._seconds(self._nominal_ticks)
        elif stream.duration is not None:
            duration = self._seconds(stream.duration)
        elif container.duration is not None:
            duration = container.duration / av.time_base
        rate = stream.average_rate or stream.guessed_rate
        return VideoInfo(
            name=self._raw.name,
            format=container.format.name,
            codec=stream.codec_context.name,
            stream_index=stream.index,
            video_streams=len(container.streams.video),
            width=width,
            height=height,
            orientation=self._orientation,
            pixel_aspect=float(self._pixel_aspect),
            average_rate=float(rate) if rate and not self._raw.is_image else None,
            duration=duration,
            start=self._seconds(ticks),
            creation_time=_creation_time({**container.metadata, **stream.metadata}),
            is_image=self._raw.is_image,
        )

    def _make_converters(self, frame: VideoFrame, size: tuple[int, int] | None, preview: int | None) -> None:
        shown = (self.info.height, self.info.width)
        self._convert = PixelConverter(size or shown, self._orientation)
        self._convert_preview: PixelConverter | None = None
        if preview is not None:
            small = preview_size(*shown, self._pixel_aspect, preview)
            self._convert_preview = PixelConverter(small, self._orientation)


def _creation_time(metadata: dict[str, str]) -> float | None:
    """Unix time of a container's `creation_time`, where it is a real one."""
    try:
        moment = datetime.fromisoformat(metadata.get("creation_time", ""))
        seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds > _OLDEST_CREATION else None
