"""Writing an annotated video: the labels that stand on its frames, and the encoder.

What both sinks of videos share; where the frames come from is theirs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter

from onlooker.operators.decode.pixels import Orientation
from onlooker.operators.events import CaptionData, Event, QueryData

from ..errors import OutputError
from .boxes import BoxPainter
from .overlay import Label, Overlay, OverlayPainter
from .paths import TrackPaths

__all__ = ["AnnotatedWriter", "LabelTrack", "check_encoder", "errors_of_libav"]

_TIME_BASE = Fraction(1, 90_000)
_SHORT_SIDE, _LONG_SIDE = 720, 1280
# Fragments keep the file playable up to the last one if the process dies, and keep the index of what was written out
# of memory (an ordinary MP4's index took 6 MB per hour).
_MOVFLAGS = "frag_keyframe+delay_moov+default_base_moof"
_KEYFRAME_SECONDS = 2
_OVERLAYS_KEPT = 8


def check_encoder() -> None:
    """Fail early where nothing could be encoded.

    Raises:
        OutputError: libav came without x264.
    """
    if "libx264" not in av.codecs_available:
        raise OutputError("this PyAV cannot encode H.264 (libx264 is missing); install PyAV's wheel from PyPI.")


@contextmanager
def errors_of_libav() -> Iterator[None]:
    """Turn libav's errors while writing into OSError, which is what a session expects of a failing output."""
    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise OSError(error.errno, f"writing the video failed: {error.strerror}") from error


@dataclass
class _Span:
    t_start: float
    t_end: float
    text: str
    is_query: bool


class LabelTrack:
    """The captions, query events and tracks that may still have to be drawn."""

    def __init__(self, period: float = 0.5) -> None:
        """Begin without any; ``period`` is the time from one sampled frame to the next, seconds."""
        self._spans: dict[str, _Span] = {}
        self._colours: dict[str, int] = {}
        self._paths = TrackPaths(period)

    def add(self, event: Event, zero: float = 0.0) -> None:
        """Note what an event says; ``zero`` seconds are added to its times."""
        self._paths.add(event, zero)
        data = event.data
        if not isinstance(data, CaptionData | QueryData):
            return
        is_query = isinstance(data, QueryData)
        text = " ".join((data.query if isinstance(data, QueryData) else data.text).split())
        if is_query:
            self._colours.setdefault(text, len(self._colours))
        t_end = math.inf if data.t_end is None else zero + data.t_end
        self._spans[data.event_id] = _Span(zero + data.t_start, t_end, text, is_query)

    def at(self, t: float) -> Label:
        """What stands on the frame at ``t``: the caption that began last, all active queries, the objects seen."""
        objects = self._paths.at(t)
        if not self._spans:
            return Label(objects=objects)
        active = [span for span in self._spans.values() if span.t_start <= t < span.t_end]
        caption = max((s for s in active if not s.is_query), key=lambda s: s.t_start, default=None)
        queries = sorted({s.text for s in active if s.is_query}, key=self._colours.__getitem__)
        chips = tuple((query, self._colours[query]) for query in queries)
        return Label(caption.text if caption else "", chips, objects)

    def forget(self, t: float) -> None:
        """Drop what ended at or before ``t``."""
        self._spans = {key: span for key, span in self._spans.items() if span.t_end > t}
        self._paths.forget(t)


class AnnotatedWriter:
    """Scales, turns, labels and encodes frames: H.264 in MP4, at most 720p, without sound."""

    def __init__(self, path: Path, rate: Fraction, pixel_aspect: Fraction, preset: str) -> None:
        """Create or truncate ``path``.

        Args:
            path: the MP4 file.
            rate: frames per second as the file tells it; the frames' own times count.
            pixel_aspect: width of the first frame's stored pixels over their height.
            preset: x264's trade of speed for size.
        """
        # Opened by Python, so that a path is a path whatever protocols libav knows.
        self._file = path.open("wb", buffering=0)
        self._container = av.open(self._file, "w", format="mp4", options={"movflags": _MOVFLAGS})
        self._rate, self._pixel_aspect = rate, pixel_aspect
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
        aspect = 1 / self._pixel_aspect if self._orientation.transpose else self._pixel_aspect
        width, height = _fit_size(width * float(aspect), height)
        self._stored_height, self._stored_width = self._orientation.shown_size(height, width)
        self._painter, self._boxes = OverlayPainter(width, height), BoxPainter(width, height)
        rate = min(self._rate, Fraction(240)).limit_denominator(1001)
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
        overlay = self._overlay(replace(label, objects=()))
        self._boxes.paint(planes, label.objects, overlay.areas)
        overlay.apply(planes)
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
