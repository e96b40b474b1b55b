"""The source video once more, with what was seen written on it: an annotated MP4.

What happens at second 10 is known only later, so the frames that passed by in decoding have no text yet. The sink
therefore opens the file a second time and follows the run at a distance: frames are annotated once everything that
may stand on them has been told. Memory stays constant: one frame, and the events that are still to be drawn.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter

from onlooker.operators.contract import End, SourceInfo
from onlooker.operators.decode.container import RawVideo
from onlooker.operators.decode.errors import SourceError
from onlooker.operators.decode.pixels import Orientation
from onlooker.operators.decode.timeline import FrameClock, FrameCounts, clock_rule
from onlooker.operators.events import CaptionData, Event, QueryData

from ..errors import OutputError
from .output import StreamFileSink
from .overlay import Label, Overlay, OverlayPainter

__all__ = ["VideoSink"]

_TIME_BASE = Fraction(1, 90_000)
_FALLBACK_RATE = Fraction(25)
_SHORT_SIDE, _LONG_SIDE = 720, 1280
# Fragments keep the file playable up to the last one if the process dies, and keep the index of what was written out
# of memory (an ordinary MP4's index took 6 MB per hour).
_MOVFLAGS = "frag_keyframe+delay_moov+default_base_moof"
_KEYFRAME_SECONDS = 2
_OVERLAYS_KEPT = 8


class VideoSink(StreamFileSink):
    """H.264 in MP4 at the source's frame rate and times, at most 720p, without sound; files only.

    Until it is closed the file is complete up to a few seconds before the annotated position.
    """

    def __init__(
        self, path: str | Path, *, delay: float = 12.0, video_stream: int | None = None, preset: str = "ultrafast"
    ) -> None:
        """Remember where to write.

        Args:
            path: the MP4 file.
            delay: seconds of media time to stay behind the run; at least the longest time from the beginning of a
                caption or query event to its first telling, i.e. the caption interval.
            video_stream: number among the file's video streams, as the source was told; None for libav's best choice.
            preset: x264's trade of speed for size.
        """
        super().__init__(path)
        self._delay = delay
        self._video_stream = video_stream
        self._preset = preset
        self._labels = _LabelTrack()
        self._known = -math.inf
        self._frames: _SourceFrames | None = None
        self._writer: _AnnotatedWriter | None = None

    def open(self) -> None:
        """Check the path and the encoder. See ``Sink.open``."""
        if "libx264" not in av.codecs_available:
            raise OutputError("this PyAV cannot encode H.264 (libx264 is missing); install PyAV's wheel from PyPI.")
        super().open()

    def _begin(self, info: SourceInfo, uri: str) -> None:
        try:
            self._frames = _SourceFrames(uri, self._video_stream)
        except SourceError as error:
            raise OutputError(
                f"cannot annotate {info.stream!r} on video: the source must be a file that can be read twice ({error})."
            ) from None
        self._writer = _AnnotatedWriter(self.path, self._frames, self._preset)

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
            with _errors_of_libav():
                self._writer.close()
            if not self.path.stat().st_size:
                self.path.unlink()  # not one frame: no file is better than one that no player opens

    def _annotate(self, until: float) -> None:
        assert self._writer is not None and self._frames is not None, "advance before start"
        with _errors_of_libav():
            for t, frame in self._frames.before(until):
                self._writer.write(t, frame, self._labels.at(t))
        self._labels.forget(until)


class _errors_of_libav:
    """Turns libav's errors while writing into OSError, which is what a session expects of a failing output."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, av.error.FFmpegError) and not isinstance(error, OSError):
            raise OSError(error.errno, f"writing the video failed: {error.strerror}") from error


@dataclass
class _Span:
    t_start: float
    t_end: float
    text: str
    is_query: bool


class _LabelTrack:
    """The captions and query events that may still have to be drawn."""

    def __init__(self) -> None:
        self._spans: dict[str, _Span] = {}
        self._colours: dict[str, int] = {}

    def add(self, event: Event) -> None:
        data = event.data
        if not isinstance(data, CaptionData | QueryData):
            return
        is_query = isinstance(data, QueryData)
        text = " ".join((data.query if isinstance(data, QueryData) else data.text).split())
        if is_query:
            self._colours.setdefault(text, len(self._colours))
        t_end = math.inf if data.t_end is None else data.t_end
        self._spans[data.event_id] = _Span(data.t_start, t_end, text, is_query)

    def at(self, t: float) -> Label:
        """What stands on the frame at ``t``: the caption that began last, and all active queries."""
        if not self._spans:
            return Label()
        active = [span for span in self._spans.values() if span.t_start <= t < span.t_end]
        caption = max((s for s in active if not s.is_query), key=lambda s: s.t_start, default=None)
        queries = sorted({s.text for s in active if s.is_query}, key=self._colours.__getitem__)
        return Label(caption.text if caption else "", tuple((query, self._colours[query]) for query in queries))

    def forget(self, t: float) -> None:
        """Drop what ended at or before ``t``."""
        self._spans = {key: span for key, span in self._spans.items() if span.t_end > t}


class _SourceFrames:
    """The frames of the source on the same clock as the run's decoder."""

    def __init__(self, uri: str, video_stream: int | None) -> None:
        counts = FrameCounts()
        self._raw = RawVideo(uri, video_stream, "SLICE", 0, counts)
        stream = self._raw.stream
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or _FALLBACK_RATE)
        self.pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
        self._time_base = stream.time_base or _TIME_BASE
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


class _AnnotatedWriter:
    """Scales, turns, labels and encodes frames."""

    def __init__(self, path: Path, source: _SourceFrames, preset: str) -> None:
        # Opened by Python, so that a path is a path whatever protocols libav knows.
        self._file = path.open("wb", buffering=0)
        self._container = av.open(self._file, "w", format="mp4", options={"movflags": _MOVFLAGS})
        self._source = source
        self._preset = preset
        self._stream: Any = None
        self._overlays: OrderedDict[Label, Overlay] = OrderedDict()
        self._reformatter = VideoReformatter()  # keeps its swscale context from frame to frame
        self._last_pts = -1

    def write(self, t: float, frame: VideoFrame, label: Label) -> None:
        """Encode one frame with its label; times must increase."""
        if self._stream is None:
            self._start(frame)
        pts = max(round(t / _TIME_BASE), self._last_pts + 1)
        self._last_pts = pts
        out = self._compose(frame, label)
        out.pts, out.time_base, out.pict_type = pts, _TIME_BASE, PictureType.NONE
        self._container.mux(self._stream.encode(out))

    def close(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        finally:
            self._file.close()

    def _start(self, frame: VideoFrame) -> None:
        self._orientation = Orientation.of(frame)
        height, width = self._orientation.shown_size(frame.height, frame.width)
        aspect = 1 / self._source.pixel_aspect if self._orientation.transpose else self._source.pixel_aspect
        width, height = _fit_size(width * float(aspect), height)
        self._stored_height, self._stored_width = self._orientation.shown_size(height, width)
        self._painter = OverlayPainter(width, height)
        rate = min(self._source.rate, Fraction(240)).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = _TIME_BASE
        keyframes = str(max(1, round(_KEYFRAME_SECONDS * rate)))
        self._stream.options = {"preset": self._preset, "crf": "23", "g": keyframes}
        codec = self._stream.codec_context
        codec.thread_count = 2
        # The pixels keep the matrix of the source, so the file has to name the same one.
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(codec, name, getattr(frame, name))

    def _compose(self, frame: VideoFrame, label: Label) -> VideoFrame:
        scaled: Any = self._reformatter.reformat(
            frame, self._stored_width, self._stored_height, "yuv420p", dst_color_range="MPEG", threads=1
        )
        if label == Label() and self._orientation == Orientation():
            return cast(VideoFrame, scaled)
        # A frame of its own: the decoder may still refer to the pixels of the one it gave.
        out = VideoFrame(self._stream.width, self._stream.height, "yuv420p")
        planes = _planes(out)
        for target, stored in zip(planes, _planes(scaled), strict=True):
            target[...] = self._orientation.apply(stored[..., None])[..., 0]
        self._overlay(label).apply(planes)
        out.colorspace, out.color_range = scaled.colorspace, scaled.color_range
        return out

    def _overlay(self, label: Label) -> Overlay:
        overlay = self._overlays.pop(label, None) or self._painter.paint(label)
        self._overlays[label] = overlay
        if len(self._overlays) > _OVERLAYS_KEPT:
            self._overlays.popitem(last=False)
        return overlay


def _planes(frame: VideoFrame) -> list[npt.NDArray[np.uint8]]:
    """Y (H, W), U and V (H/2, W/2) of a yuv420p frame, as views."""
    return [
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]  # type: ignore[call-overload]
        for plane in frame.planes
    ]


def _fit_size(width: float, height: float) -> tuple[int, int]:
    """Even (width, height) with the aspect kept, square pixels, at most 720p upright or lying."""
    scale = min(1.0, _SHORT_SIDE / min(width, height), _LONG_SIDE / max(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
