"""Opening a local video file and pulling raw frames out of it, whatever state the file is in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .errors import SourceError
from .integrity import has_index_box, is_cut_short
from .timeline import FrameCounts

__all__ = ["RawVideo", "ThreadType", "open_container", "pick_stream"]

ThreadType = Literal["NONE", "SLICE", "FRAME", "AUTO"]

# Containers with an index of presentation times, in which libav's seek lands on a key frame at or before its target.
_SEEKABLE = {"mp4", "matroska"}
# libav opens one picture as a sequence of one, or through a demuxer of its own per codec: jpeg_pipe, png_pipe ...
_IMAGE_FORMAT, _IMAGE_SUFFIX = "image2", "_pipe"
# libav would draw any text file as a picture of a terminal.
_TEXT_FORMATS = {"tty", "bin", "xbin", "adf", "idf"}


def open_container(path: str | Path) -> InputContainer:
    """Open a regular, readable, non-empty local file with libav.

    Raises:
        SourceError: it is not one, or libav cannot read it; the message is one line.
    """
    name = _check_file(path)
    no_video = f"{name}: not a video file that can be read; check the file, or convert it to MP4 or MKV"
    try:
        # Titles and comments in odd encodings are no reason to refuse a video.
        container = av.open(str(path), mode="r", metadata_errors="replace")
    except av.error.InvalidDataError as error:
        if has_index_box(path) is False:
            raise SourceError(
                "not_a_video",
                f"{name}: the MP4 index (moov) is missing, so the recording was cut off before it was closed; "
                "repair it with the recorder's tool, or record fragmented MP4 or MKV, which survive a cut",
            ) from error
        raise SourceError("not_a_video", no_video) from error
    except av.error.EOFError as error:
        raise SourceError(
            "no_frames", f"{name}: ends before its first frame; was the recording or the copy finished?"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        why = error.strerror or type(error).__name__
        raise SourceError("not_a_video", f"{name}: cannot be opened ({why}); check the file") from error
    if container.format.name in _TEXT_FORMATS:
        container.close()
        raise SourceError("not_a_video", no_video)
    return container


def _check_file(path: str | Path) -> str:
    """Return the file's name for messages after checking that it is a file with something in it."""
    text = os.fspath(path)
    if "://" in text:
        scheme = text.partition("://")[0]
        raise SourceError(
            "not_a_file", f"{scheme}:// source: the file decoder reads local files only; download the video first"
        )
    name = Path(text).name or text
    try:
        status = os.stat(text)
    except FileNotFoundError:
        raise SourceError("missing", f"{name}: no such file; check the path") from None
    except PermissionError:
        raise SourceError("permission", f"{name}: no permission to read it; change the rights or the user") from None
    except (OSError, ValueError) as error:
        raise SourceError("not_a_file", f"{name!r}: not a usable path: {error.__class__.__name__}") from None
    if stat.S_ISDIR(status.st_mode):
        raise SourceError("not_a_file", f"{name}: a folder; name one video file in it")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError("not_a_file", f"{name}: not a regular file; the file decoder reads files only")
    if not os.access(text, os.R_OK):
        raise SourceError("permission", f"{name}: no permission to read it; change the rights or the user")
    if status.st_size == 0:
        raise SourceError("empty", f"{name}: the file is empty (0 bytes); was the recording or the copy finished?")
    return name


def pick_stream(container: InputContainer, name: str, number: int | None) -> VideoStream:
    """Return video stream `number` (0, 1 ... among the video streams), or libav's best choice for None.

    Raises:
        SourceError: there is no such stream, or no video at all. Cover pictures of audio files do not count.
    """
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        if container.streams.audio:
            raise SourceError("no_video_stream", f"{name}: holds sound but no video; choose a file with pictures")
        raise SourceError("no_video_stream", f"{name}: holds no video stream; choose a file with pictures")
    if number is not None:
        if not 0 <= number < len(videos):
            raise SourceError(
                "no_such_stream",
                f"{name}: has no video stream {number}; choose one of 0 to {len(videos) - 1}, or none for the best one",
            )
        return videos[number]
    best = container.streams.best("video")
    return best if best in videos else videos[0]


class RawVideo:
    """An open video stream: decoded libav frames in presentation order, damage counted and stepped over.

    Use from one thread. `close` may only be called by the thread that reads.
    """

    def __init__(
        self, path: str | Path, number: int | None, thread_type: ThreadType, threads: int, counts: FrameCounts
    ) -> None:
        """Open the file and its stream; raises SourceError where there is nothing to decode."""
        self.name = Path(path).name
        self.counts = counts
        self.container = open_container(path)
        try:
            self.stream = pick_stream(self.container, self.name, number)
            codec: Any = self.stream.codec_context
            if codec is None:
                raise SourceError(
                    "not_a_video", f"{self.name}: no decoder for this video; convert it to H.264, VP9 or AV1"
                )
            codec.thread_type = thread_type
            codec.thread_count = threads
            format_name = self.container.format.name
            self.is_image = format_name == _IMAGE_FORMAT or format_name.endswith(_IMAGE_SUFFIX)
            self.seekable = bool(set(format_name.split(",")) & _SEEKABLE)
            self.cut_short = is_cut_short(path, format_name)
        except BaseException:
            self.container.close()
            raise
        self._broken = False

    def truncated(self, seconds: float, tolerance: float) -> bool:
        """Say whether a file that has delivered `seconds` of media time broke off.

        It did if it lacks bytes that it declares, if reading it failed half way, or if the stream ends more than
        `tolerance` seconds before its declared end.
        """
        return self._broken or self.cut_short or self._declared_end() > seconds + tolerance

    def _declared_end(self) -> float:
        """Seconds at which the stream says it ends, 0.0 where it does not.

        Matroska only: its demuxer skips to the end over damage that it cannot read and reports nothing. Written
        `hours:minutes:seconds` by the common muxers.
        """
        hours, _, rest = self.stream.metadata.get("DURATION", "").partition(":")
        minutes, _, seconds = rest.partition(":")
        try:
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return 0.0

    def frames(self) -> Iterator[VideoFrame]:
        """Decode from the current position to the end; what cannot be decoded is counted in `counts`."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError):
                self._broken = True
                yield from self._decode(None)  # frames that the decoder still holds back
                return
            if packet is None:
                return
            if packet.is_corrupt:
                self.counts.corrupt_packets += 1
            yield from self._decode(packet)

    def _decode(self, packet: Any) -> list[VideoFrame]:
        try:
            return list(self.stream.decode(packet))
        except av.error.FFmpegError:
            if packet is not None and not packet.is_corrupt:
                self.counts.corrupt_packets += 1
            return []

    def seek(self, ticks: int) -> None:
        """Go to a key frame; meant to lie at or before `ticks`, which the caller has to check.

        Raises:
            av.error.FFmpegError: the file cannot seek.
        """
        self.container.seek(ticks, stream=self.stream, backward=True)

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self.container.close()
