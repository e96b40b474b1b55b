"""Frame decoding on one clock: sequential reading with sampling, and random access for offline files.

Nothing here imports torch, so that a process which only decodes stays small.
"""

from onlooker.operators.decode.errors import SourceError
from onlooker.operators.decode.random_access import VideoIndex, sample_uniform
from onlooker.operators.decode.video import (
    Cursor,
    DecodedFrame,
    EndOfVideo,
    VideoInfo,
    VideoReader,
    open_video,
)

__all__ = [
    "Cursor",
    "DecodedFrame",
    "EndOfVideo",
    "SourceError",
    "VideoIndex",
    "VideoInfo",
    "VideoReader",
    "open_video",
    "sample_uniform",
]
