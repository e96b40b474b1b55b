"""The source video once more, with what was seen written on it: an annotated MP4.

What happens at second 10 is known only later, so the frames that passed by in decoding have no text yet. The sink
therefore opens the file a second time and follows the run at a distance: frames are annotated once everything that
may stand on them has been told. Memory stays constant: one frame, and the events that are still to be drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from av.video.frame import VideoFrame

from onlooker.operators.contract import End, SourceInfo
from onlooker.operators.decode.container import RawVideo
from onlooker.operators.decode.errors import SourceError
from onlooker.operators.decode.timeline import FrameClock, FrameCounts, clock_rule
from onlooker.operators.events import Event

from ..errors import OutputError
from .annotated import AnnotatedWriter, LabelTrack, check_encoder, errors_of_libav
from .output import StreamFileSink

__all__ = ["VideoSink"]

_FALLBACK_RATE = Fraction(25)
_FALLBACK_TIME_BASE = Fraction(1, 90_000)


class VideoSink(StreamFileSink):
    """H.264 in MP4 at the source's frame rate and times, at most 720p, without sound; files only.

    Until it is closed the file is complete up to a few seconds before the annotated position.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        delay: float = 12.0,
        period: float = 0.5,
        video_stream: int | None = None,
        preset: str = "ultrafast",
    ) -> None:
        """Remember where to write.

        Args:
            path: the MP4 file.
            delay: seconds of media time to stay behind the run; at least the longest time from the beginning of a
                caption, a query event or a track to its first telling, i.e. the caption interval.
            period: seconds of media time from one sampled frame to the next, for objects between them.
            video_stream: number among the file's video streams, as the source was told; None for libav's best choice.
            preset: x264's trade of speed for size.
        """
        super().__init__(path)
        self._delay = delay
        self._video_stream = video_stream
        self._preset = preset
        self._labels = LabelTrack(period)
        self._known = -math.inf
        self._frames: _SourceFrames | None = None
        self._writer: AnnotatedWriter | None = None

    def open(self) -> None:
        """Check the path and the encoder. See ``Sink.open``."""
        check_encoder()
        super().open()

    def _begin(self, info: SourceInfo, uri: str) -> None:
        try:
            self._frames = _SourceFrames(uri, self._video_stream)
        except SourceError as error:
            raise OutputError(
                f"cannot annotate {info.stream!r} on video: the source must be a file that can be read twice ({error})."
            ) from None
        self._writer = AnnotatedWriter(self.path, self._frames.rate, self._frames.pixel_aspect, self._preset)

    def event(self, event: Event) -> None:
        """Note what to draw. See ``Sink.event``."""
        self._labels.add(event)

    def advance(self, t: float) -> None:
        """Annotate up to ``delay`` before ``t``. See ``Sink.advance``."""
        self._known = max(self._known, t)
        self._annotate(t - self._delay)

    def finish(self, stream: str, end: End) -> None:
        """Annotate the rest: all of a complete stream, else up to where it was processed. See ``Sink.finish``."""
        self._known = math.inf if end.reason in ("complete", "truncated") else end.t
        self._annotate(self._known)

    def _complete(self) -> None:
        assert self._writer is not None and self._frames is not None
        try:
            self._annotate(self._known)
        finally:
            self._frames.close()
            with errors_of_libav():
                self._writer.close()
            if not self.path.stat().st_size:
                self.path.unlink()  # not one frame: no file is better than one that no player opens

    def _annotate(self, until: float) -> None:
        assert self._writer is not None and self._frames is not None, "advance before start"
        with errors_of_libav():
            for t, frame in self._frames.before(until):
                self._writer.write(t, frame, self._labels.at(t))
        self._labels.forget(until)


class _SourceFrames:
    """The frames of the source on the same clock as the run's decoder."""

    def __init__(self, uri: str, video_stream: int | None) -> None:
        counts = FrameCounts()
        self._raw = RawVideo(uri, video_stream, "SLICE", 0, counts)
        stream = self._raw.stream
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or _FALLBACK_RATE)
        self.pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
        self._time_base = stream.time_base or _FALLBACK_TIME_BASE
        self._clock = FrameClock(
            clock_rule(self._raw.container.format.name), self._time_base, round(1 / self.rate / self._time_base), counts
        )
        self._decoded = self._raw.frames()
        self._next: tuple[float, VideoFrame] | None = None

    def before(self, until: float) -> Iterator[tuple[float, VideoFrame]]:
        """The next frames with a media time below ``until``, each with its time in seconds."""
        while True:
            self._next = self._next or self._read()
            if self._next is None or self._next[0] >= until:
                return
            frame, self._next = self._next, None
            yield frame

    def _read(self) -> tuple[float, VideoFrame] | None:
        for frame in self._decoded:
            duration = None if self._raw.is_image else frame.duration
            ticks = self._clock.place(frame.pts, frame.dts, duration)
            if ticks is not None:
                return float(ticks * self._time_base), frame
        return None

    def close(self) -> None:
        self._raw.close()
