"""Encoding pictures as cameras do: no B-frames, no delay, a key frame every second."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.video.frame import PictureType, VideoFrame

from ..errors import UsageError
from .formats import Codec
from .jpeg import MAX_SIDE
from .rtp import CLOCK_RATE

__all__ = ["Encoder"]

_NAMES = {"h264": "libx264", "h265": "libx265", "mjpeg": "mjpeg"}
_SMALLEST = 32  # pixels; libx265 takes no less


class Encoder:
    """One encoder that gives each picture out as soon as it is in."""

    def __init__(self, codec: Codec, size: tuple[int, int], rate: Fraction | float) -> None:
        """Open the encoder; a size is rounded down to what the codec can have.

        Raises:
            UsageError: this codec cannot be encoded here, or not in this size.
        """
        unit = 8 if codec == "mjpeg" else 2
        width, height = (max(side // unit * unit, _SMALLEST) for side in size)
        if codec == "mjpeg" and max(width, height) > MAX_SIDE:
            raise UsageError(
                f"MJPEG cameras send at most {MAX_SIDE}x{MAX_SIDE} pixels, not {width}x{height}; give a smaller --size."
            )
        self.codec: Codec = codec
        self.size = (width, height)
        self._pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        self._key_wanted = False
        gop = max(round(rate), 1)
        try:
            context: Any = av.CodecContext.create(_NAMES[codec], "w")
            context.width, context.height, context.pix_fmt = width, height, self._pixels
            context.time_base = Fraction(1, CLOCK_RATE)
            context.framerate = Fraction(rate).limit_denominator(1001)
            context.thread_count = 1
            context.options = _options(codec, gop)
            context.open()
        except (av.codec.codec.UnknownCodecError, av.error.FFmpegError) as error:
            raise UsageError(
                f"this machine's libav cannot encode {codec} at {width}x{height} ({type(error).__name__}); "
                "choose another --codec or --size."
            ) from error
        self._context = context

    def want_key(self) -> None:
        """Make the next picture a key frame."""
        self._key_wanted = True

    def encode(self, frame: VideoFrame, ticks: int) -> Iterator[tuple[bool, bytes]]:
        """Yield (key frame, bytes) for the picture; H.264 and H.265 with start codes and parameter sets."""
        width, height = self.size
        picture = frame.reformat(width=width, height=height, format=self._pixels)
        picture.pts, picture.time_base = ticks, Fraction(1, CLOCK_RATE)
        # The decoder's picture type would be an order to the encoder.
        picture.pict_type = PictureType.I if self._key_wanted else PictureType.NONE
        self._key_wanted = False
        for packet in self._context.encode(picture):
            yield packet.is_keyframe, bytes(packet)


def _options(codec: Codec, gop: int) -> dict[str, str]:
    if codec == "mjpeg":  # receivers of RFC 2435 have the standard Huffman tables only
        return {"huffman": "default", "qmin": "3", "qmax": "6"}
    options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(gop), "bf": "0", "forced-idr": "1"}
    if codec == "h265":
        options["x265-params"] = f"log-level=none:repeat-headers=1:pools=none:frame-threads=1:keyint={gop}"
    return options
