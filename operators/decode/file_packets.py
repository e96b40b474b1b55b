"""What the sources of video files tell the graph alike: the file, and a frame of it."""

from __future__ import annotations

from ..contract import SourceInfo
from ..packets import Frame
from .pixels import RGB
from .video import VideoInfo

__all__ = ["file_frame", "file_info"]


def file_info(stream: str, info: VideoInfo) -> SourceInfo:
    """Describe a file as a stream: one epoch, wall time from the file if it says when it was recorded."""
    return SourceInfo(
        stream=stream,
        epoch=0,
        width=info.width,
        height=info.height,
        duration=info.duration,
        wall_zero=info.creation_time,
        time_source="file",
    )


def file_frame(stream: str, info: VideoInfo, t: float, index: int, pixels: RGB) -> Frame:
    """Return frame number `index` of the stream, shown at `t` seconds; pixels (H, W, 3) uint8."""
    return Frame(stream=stream, epoch=0, t=t, pixels=pixels, index=index, source_size=(info.width, info.height))
