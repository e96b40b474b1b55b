"""Makes the video files that tests need: through PyAV, with every timestamp and flag under the test's control.

Frames carry their own number as a pattern of black and white blocks, so that a test can read from decoded pixels which
frame it was given (`frame_number`), whatever codec, size or turn lies in between.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]

_BITS = 10


def numbered_frame(number: int, height: int = 48, width: int = 80) -> RGB:
    """Return (height, width, 3) uint8: `number` in binary as 2 rows of 5 blocks, top left the lowest bit."""
    bits = (number >> np.arange(_BITS)) & 1
    blocks = np.where(bits.reshape(2, 5), 235, 16).astype(np.uint8)
    picture = blocks.repeat(-(-height // 2), 0).repeat(-(-width // 5), 1)[:height, :width]
    return np.repeat(picture[:, :, None], 3, 2)


def frame_number(pixels: RGB) -> int:
    """Read the number back from a frame of any size, upright."""
    height, width = pixels.shape[:2]
    rows = [height // 4, 3 * height // 4]
    columns = [(2 * c + 1) * width // 10 for c in range(5)]
    bits = (pixels[np.ix_(rows, columns)].mean(-1) > 128).reshape(-1)
    return int((bits << np.arange(_BITS)).sum())


def write_video(
    path: str | Path,
    frames: int | Iterable[RGB] = 50,
    *,
    pts: Sequence[int] | None = None,
    rate: int | Fraction = 25,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    gop: int = 12,
    aspect: Fraction | None = None,
) -> Path:
    """Write numbered frames (or the given ones) as one video stream.

    `pts` are in units of `time_base` (1 / rate by default), one per frame, increasing.
    """
    path = Path(path)
    pictures = (numbered_frame(i) for i in range(frames)) if isinstance(frames, int) else iter(frames)
    unit = time_base or 1 / Fraction(rate)
    first = next(pictures)
    options = {"g": str(gop), "bf": "2", "preset": "ultrafast", "b_strategy": "0"} if codec == "libx264" else {}
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream: Any = container.add_stream(codec, rate=rate, options={**options, **(codec_options or {})})
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = unit
        stream.codec_context.thread_count = 1
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, picture in enumerate([first, *pictures]):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = unit
            frame.pts = number if pts is None else pts[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_two_streams(path: str | Path) -> Path:
    """Write a file with two video streams: number 0 small, frames from 0; number 1, the default, frames from 500."""
    with av.open(str(path), "w") as container:
        streams: list[Any] = []
        for height, width in [(48, 80), (96, 160)]:
            stream: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            streams.append(stream)
        streams[0].disposition, streams[1].disposition = 0, av.stream.Disposition.default.value
        for number in range(30):
            for first, stream in zip([0, 500], streams, strict=True):
                frame = av.VideoFrame.from_ndarray(
                    numbered_frame(first + number, stream.height, stream.width), format="rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return Path(path)


def write_audio(path: str | Path, seconds: float = 0.5, cover: bool = False) -> Path:
    """Write a file with sound only; with `cover` also a picture, as music files have."""
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("aac", rate=16_000, layout="mono")
        picture: Any = None
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = 48, 80, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic.value
        frame = av.AudioFrame.from_ndarray(np.zeros((1, int(16_000 * seconds)), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        packets = sound.encode(frame) + sound.encode(None)
        if picture is not None:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(numbered_frame(1), format="rgb24")))
            container.mux(picture.encode(None))
        container.mux(packets)
    return Path(path)


def remux(source: str | Path, target: str | Path, edit: Any, options: dict[str, str] | None = None) -> Path:
    """Copy the video packets of a file; `edit(number, packet)` may change each one, or return False to leave it out."""
    with av.open(str(source)) as incoming, av.open(str(target), "w", options=options or {}) as outgoing:
        stream = outgoing.add_stream_from_template(incoming.streams.video[0])
        outgoing.start_encoding()
        for number, packet in enumerate(p for p in incoming.demux(video=0) if p.size):
            if edit(number, packet) is not False:
                packet.stream = stream
                outgoing.mux(packet)
    return Path(target)


MATRICES: dict[str, tuple[int, int, int, int]] = {
    # (a, b, c, d): a stored pixel (x, y) is shown at (a x + c y, b x + d y), up to a shift
    "upright": (1, 0, 0, 1),
    "quarter clockwise": (0, 1, -1, 0),
    "half": (-1, 0, 0, -1),
    "quarter anticlockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}


def set_display_matrix(path: str | Path, matrix: tuple[int, int, int, int]) -> None:
    """Overwrite the display matrix in the (first) track header of an MP4 file."""
    data = bytearray(Path(path).read_bytes())
    place = data.index(b"tkhd") + 44
    assert data[place - 40] == 0, "version 0 of the track header expected"
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    Path(path).write_bytes(data)


def cut(source: str | Path, target: str | Path, share: float) -> Path:
    """Copy the first `share` of a file's bytes."""
    data = Path(source).read_bytes()
    Path(target).write_bytes(data[: int(len(data) * share)])
    return Path(target)
