"""Random access to the frames of an offline file: decord for the pixels, PyAV for the times.

decord reads by frame number and is quick at it, but its own times are float32 and start at its first frame. So the
times always come from PyAV, and decord is used only where its frames are provably the same ones; everywhere else, and
where decord has no wheel, PyAV decodes through the file and gives the same frames at the same times.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt

from .container import RawVideo
from .errors import SourceError
from .pixels import RGB, Orientation
from .timeline import FrameCounts, clock_rule
from .video import EndOfVideo, open_video

__all__ = ["Backend", "VideoIndex", "sample_uniform", "uniform_indices"]

Backend = Literal["auto", "decord", "pyav"]

# decord's float32 times are good to about this much in the first hours of a file.
_DECORD_TIME_TOLERANCE = 0.002


class VideoIndex:
    """The frames of a file by number.

    Opening reads the packet headers once; only where they do not settle the frame times is the video decoded.
    """

    def __init__(self, path: str | Path, *, video_stream: int | None = None, backend: Backend = "auto") -> None:
        """Open the file.

        Args:
            path: A local video file.
            video_stream: Number among the video streams; None for libav's best choice.
            backend: `auto` takes decord where it agrees with PyAV. `decord` insists on it, `pyav` avoids it.

        Raises:
            SourceError: the file has no decodable frame.
            ValueError: `backend="decord"` and decord is missing or sees other frames than PyAV.
        """
        self._path = Path(path)
        self._video_stream = video_stream
        with open_video(path, rate=None, video_stream=video_stream) as reader:
            self.info = reader.info
        packets = _packet_times(self._path, video_stream)
        self.times: npt.NDArray[np.float64] = packets
        """(F,) media time of each frame in seconds, strictly increasing."""
        self.end: EndOfVideo
        """How the file ends, and where."""
        if len(packets):
            spacing = (packets[-1] - packets[0]) / (len(packets) - 1) if len(packets) > 1 else 0.0
            self.end = EndOfVideo("complete", self.info.duration or float(packets[-1] + spacing))
        else:
            self.times, self.end = _decoded_times(self._path, video_stream)
        agrees = (
            backend != "pyav"
            and len(packets) > 0
            and self.info.orientation == Orientation()  # decord turns pictures in its own way
            and self.info.video_streams == 1  # and chooses its stream itself
            and _decord_agrees(self._path, packets)
        )
        self.backend: Literal["decord", "pyav"] = "decord" if agrees else "pyav"
        if backend == "decord" and not agrees:
            raise ValueError(
                f"{self._path.name}: decord is not installed or does not see the frames that PyAV sees; "
                'use backend="auto"'
            )

    def __len__(self) -> int:
        """Return the number of frames F."""
        return len(self.times)

    def frames(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]], size: tuple[int, int]) -> RGB:
        """Return the frames with these numbers, squashed to `size` (height, width), as (N, H, W, 3) uint8 RGB.

        Numbers may repeat and come in any order.

        Raises:
            IndexError: a number is outside 0 ... F - 1.
            SourceError: the file has changed since it was opened.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"frame numbers must lie in 0 ... {len(self) - 1}, got {wanted.tolist()}")
        unique, place = np.unique(wanted, return_inverse=True)
        if not unique.size:
            return np.zeros((0, *size, 3), np.uint8)
        pixels = self._from_decord(unique, size) if self.backend == "decord" else self._from_pyav(unique, size)
        return pixels[place]

    def _from_decord(self, numbers: npt.NDArray[np.int64], size: tuple[int, int]) -> RGB:
        pixels: RGB = _decord_reader(self._path, size).get_batch(numbers.tolist()).asnumpy()
        return pixels

    def _from_pyav(self, numbers: npt.NDArray[np.int64], size: tuple[int, int]) -> RGB:
        """Decode up to the last wanted frame and convert only the wanted ones."""
        times = self.times[numbers]
        pixels = np.zeros((len(numbers), *size, 3), np.uint8)
        with open_video(self._path, rate=None, size=size, video_stream=self._video_stream) as reader:
            for row, t in enumerate(times):
                frame = reader.next_from(t)
                if frame is not None:
                    pixels[row] = frame.pixels
                elif row:
                    pixels[row] = pixels[row - 1]  # announced by the container but not decodable
                else:
                    raise SourceError("changed", f"{self._path.name}: the file has changed while it was read")
        return pixels


def uniform_indices(frames: int, samples: int) -> npt.NDArray[np.int64]:
    """Return the numbers of `samples` frames spread over the whole of `frames`, first and last included.

    `int(linspace(0, F - 1, T))`, truncated, as Streaming Dense Video Captioning samples its evaluation videos; a
    short video repeats frames.
    """
    if frames < 1 or samples < 1:
        raise ValueError(f"need at least one frame and one sample, got {frames} frames, {samples} samples")
    return np.linspace(0, frames - 1, samples).astype(np.int64)


def sample_uniform(
    path: str | Path,
    samples: int,
    size: tuple[int, int],
    *,
    video_stream: int | None = None,
    backend: Backend = "auto",
) -> tuple[RGB, npt.NDArray[np.float64]]:
    """Return `samples` frames spread evenly over a file, and their times.

    Args:
        path: A local video file.
        samples: T, the number of frames.
        size: (H, W) to squash them to.
        video_stream: Number among the video streams; None for libav's best choice.
        backend: See `VideoIndex`.

    Returns:
        Pixels (T, H, W, 3) uint8 RGB and media times (T,) float64 seconds, which never decrease.

    Raises:
        SourceError: the file has no decodable frame.
    """
    index = VideoIndex(path, video_stream=video_stream, backend=backend)
    numbers = uniform_indices(len(index), samples)
    return index.frames(numbers, size), index.times[numbers]


def _packet_times(path: Path, video_stream: int | None) -> npt.NDArray[np.float64]:
    """Return the frame times as the packet headers give them, or an empty array where they do not settle them.

    They do where every packet is one frame with a PTS of its own on a clock that starts at presentation time 0.
    """
    raw = RawVideo(path, video_stream, "NONE", 1, FrameCounts())
    try:
        time_base = raw.stream.time_base
        if time_base is None or raw.cut_short or clock_rule(raw.container.format.name) != "presentation":
            return np.zeros(0)
        ticks: list[int] = []
        for packet in raw.container.demux(raw.stream):
            if packet.size == 0:
                continue  # the empty packet that ends a stream
            if packet.pts is None or packet.pts < 0 or packet.is_corrupt or packet.is_discard:
                return np.zeros(0)
            ticks.append(packet.pts)
    except av.error.FFmpegError:
        return np.zeros(0)
    finally:
        raw.close()
    ticks.sort()
    if len(set(ticks)) < len(ticks):
        return np.zeros(0)
    return np.array([t * time_base.numerator / time_base.denominator for t in ticks], np.float64)


def _decoded_times(path: Path, video_stream: int | None) -> tuple[npt.NDArray[np.float64], EndOfVideo]:
    """Return the times of all frames, and how the file ends, by decoding them."""
    times: list[float] = []
    with open_video(path, rate=None, video_stream=video_stream) as reader:
        while (t := reader.skip()) is not None:
            times.append(t)
    assert reader.end is not None  # skip has told the end
    return np.array(times, np.float64), reader.end


def _decord_reader(path: Path, size: tuple[int, int]) -> Any:
    """Open a file in decord, which scales while it decodes.

    Raises:
        ImportError: there is no wheel of it for this platform.
        RuntimeError: decord cannot read the file.
    """
    # Not at the top: decord brings a second FFmpeg, which a process that only reads in order need not load.
    import decord

    height, width = size
    try:
        # One thread: each more keeps frames of its own in memory.
        return decord.VideoReader(str(path), ctx=decord.cpu(0), width=width, height=height, num_threads=1)
    except decord.DECORDError as error:
        raise RuntimeError(f"{path.name}: decord cannot read it") from error


def _decord_agrees(path: Path, times: npt.NDArray[np.float64]) -> bool:
    """Say whether decord is here and numbers the same frames: as many, at the same distances from the first."""
    try:
        reader = _decord_reader(path, (16, 16))
        if len(reader) != len(times):
            return False
        stamps = reader.get_frame_timestamp(range(len(times)))[:, 0].astype(np.float64)
    except (ImportError, RuntimeError, IndexError):
        return False
    return bool(np.allclose(stamps - stamps[0], times - times[0], rtol=1e-6, atol=_DECORD_TIME_TOLERANCE))
