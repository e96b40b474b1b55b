"""Videos with known truth, made from captioned photographs.

Each photograph is shown for a random time under a slow pan and zoom and fades into the next one. Beside the video
stands a JSON file that says exactly what was shown when, so that captions and query events can be scored.

    truth = write_scenes(flickr_scenes(root, "dev", 20, seed=3), "dev03.mp4", seed=3)
    truth.scenes[0].t_end, truth.scenes[0].captions

The picture work is done on the three planes of YUV 4:2:0, the encoder's own format: half the pixels of RGB and no
conversion per frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from .files import whole_file
from .flickr import read_split

__all__ = [
    "Scene",
    "SceneTruth",
    "Truth",
    "VideoOptions",
    "demo_scenes",
    "flickr_scenes",
    "read_truth",
    "write_scenes",
]

Plane = npt.NDArray[np.uint8]
Box = npt.NDArray[np.float64]
"""(left, top, right, bottom) as shares of the picture."""


@dataclass(frozen=True)
class Scene:
    """One photograph to show."""

    image: Path | npt.NDArray[np.uint8]
    """An image file, or (H, W, 3) uint8 RGB."""
    captions: tuple[str, ...]
    name: str
    """File name or other key that identifies the photograph."""
    fit: Literal["cover", "stretch"] = "cover"
    """`cover` keeps the aspect and crops; `stretch` fills the frame, for pictures that were squashed before."""
    focus: tuple[float, float] = (0.5, 0.5)
    """Point (x, y), as shares of the picture, that a crop keeps near its middle."""


@dataclass(frozen=True)
class VideoOptions:
    """How scenes are shown and encoded."""

    width: int = 640
    height: int = 360
    fps: int = 25
    seconds: tuple[float, float] = (6.0, 12.0)
    """Each scene's time is drawn evenly from this range."""
    fade: float = 0.5
    """Seconds of cross-fade around each border; 0 cuts hard."""
    zoom: float = 1.25
    """Largest magnification: at least 1 / zoom of each side of the picture is always in view."""
    noise: float = 0.0
    """Standard deviation of camera noise on the luma, in steps of 1 / 255."""
    crf: int = 26
    """x264's quality: 18 is near lossless, 35 shows blocks."""
    preset: str = "ultrafast"
    """x264's speed; `superfast` takes nearly twice the time for a quarter of the bytes."""

    def __post_init__(self) -> None:
        """Refuse what cannot be encoded or shown."""
        if self.width % 2 or self.height % 2 or min(self.width, self.height) < 16:
            raise ValueError(f"width and height must be even and at least 16, got {self.width}x{self.height}")
        shortest, longest = self.seconds
        if not 0 < shortest <= longest:
            raise ValueError(f"seconds must be a range above 0, got {self.seconds}")
        if not 0 <= self.fade <= shortest:
            raise ValueError(f"fade must lie in 0 ... the shortest scene ({shortest} s), got {self.fade}")
        if self.fps < 1 or self.zoom < 1 or self.noise < 0:
            raise ValueError(f"need fps >= 1, zoom >= 1, noise >= 0, got {self.fps}, {self.zoom}, {self.noise}")


@dataclass(frozen=True)
class SceneTruth:
    """What was shown in [t_start, t_end), seconds; a border is the middle of its cross-fade."""

    t_start: float
    t_end: float
    file: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Truth:
    """Everything that is known about a generated video."""

    video: str
    duration: float
    fade: float
    fps: int
    seed: int
    scenes: tuple[SceneTruth, ...]

    def at(self, t: float) -> SceneTruth:
        """Return the scene shown at media time `t`, the one with more weight during a cross-fade."""
        for scene in self.scenes:
            if scene.t_start <= t < scene.t_end:
                return scene
        raise ValueError(f"no scene at {t} s: {self.video} lasts {self.duration} s")

    def write(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_truth(path: str | Path) -> Truth:
    """Read the truth that `write_scenes` left beside a video."""
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    scenes = tuple(SceneTruth(**{**s, "captions": tuple(s["captions"])}) for s in data.pop("scenes"))
    return Truth(scenes=scenes, **data)


def flickr_scenes(data_root: str | Path, split: str, n: int, seed: int) -> list[Scene]:
    """Draw `n` different photographs of one Flickr8k split.

    The copies at 224x224 are squashed, not cropped (balls in them are ellipses), so they are stretched over the
    frame: a tower that squashes frames to a square then sees the photograph as it was stored.
    """
    photographs = read_split(Path(data_root), split)
    if not 1 <= n <= len(photographs):
        raise ValueError(f"split {split!r} has {len(photographs)} photographs, cannot draw {n}")
    chosen = np.random.default_rng(seed).choice(len(photographs), n, replace=False)
    return [
        Scene(photographs.images / photographs.files[i], photographs.captions[i], photographs.files[i], "stretch")
        for i in chosen
    ]


def demo_scenes() -> list[Scene]:
    """Return the public-domain photographs that come inside scikit-image's wheel, with a rough truth of our own."""
    import skimage.data

    table = [
        ("astronaut", "a smiling woman in an orange space suit in front of a flag", (0.5, 0.3)),
        ("coffee", "a cup of coffee with a spoon on a wooden table", (0.5, 0.5)),
        ("chelsea", "the face of a brown cat", (0.5, 0.4)),
        ("rocket", "a rocket stands on its launch pad at dusk", (0.5, 0.5)),
        ("camera", "a man in a dark coat looks through a camera on a tripod", (0.5, 0.35)),
    ]
    scenes = []
    for name, caption, focus in table:
        picture = getattr(skimage.data, name)()
        if picture.ndim == 2:
            picture = np.repeat(picture[:, :, None], 3, 2)
        scenes.append(Scene(picture, (caption,), name, "cover", focus))
    return scenes


def write_scenes(
    scenes: Iterable[Scene],
    path: str | Path,
    *,
    seed: int = 0,
    options: VideoOptions | None = None,
    total_seconds: float | None = None,
) -> Truth:
    """Write the scenes as an H.264 MP4 and their truth as JSON beside it (`.json` in place of the suffix).

    The same scenes, seed and options give the same bytes on one machine. Scenes are taken one at a time and memory
    stays flat, so the iterable and the video may be long.

    Args:
        scenes: What to show, in order; at least one.
        path: The MP4 to write. It appears under this name once it is complete.
        seed: Of times, movements and noise.
        options: Size, times, movement, noise and compression.
        total_seconds: Show the scenes again and again up to this length. They are then kept in a list.

    Raises:
        ValueError: there is no scene, or an option is out of range.
    """
    options = options or VideoOptions()
    path = Path(path)
    shots = _shots(scenes, np.random.default_rng([seed, 0]), options, total_seconds)
    noise = _NoiseBank(options, np.random.default_rng([seed, 1]))
    truths: list[SceneTruth] = []
    with whole_file(path) as part, _Encoder(part, options) as encoder:
        for shot, frames in _frames(shots, options):
            truths.append(shot.truth(options.fps))
            for y, u, v in frames:
                encoder.write((noise.add(y), u, v))
    truth = Truth(path.name, truths[-1].t_end, options.fade, options.fps, seed, tuple(truths))
    truth.write(path.with_suffix(".json"))
    return truth


# ---- what is shown when


@dataclass(frozen=True)
class _Shot:
    """A scene with its place in the video (frame numbers) and its movement."""

    scene: Scene
    start: int
    end: int
    boxes: tuple[Box, Box]

    def truth(self, fps: int) -> SceneTruth:
        return SceneTruth(self.start / fps, self.end / fps, self.scene.name, self.scene.captions)


def _shots(
    scenes: Iterable[Scene], rng: np.random.Generator, options: VideoOptions, total_seconds: float | None
) -> Iterator[_Shot]:
    """Give each scene its time and movement; the last one is cut or stretched to the total."""
    total = None if total_seconds is None else round(total_seconds * options.fps)
    if total is not None and total < 1:
        raise ValueError(f"total_seconds must hold at least one frame, got {total_seconds}")
    start = 0
    for scene in scenes if total is None else cycle(scenes):
        end = start + max(1, round(rng.uniform(*options.seconds) * options.fps))
        if total is not None and end > total - options.fps * options.seconds[0] / 2:
            end = total  # no stump of a scene at the end
        yield _Shot(scene, start, end, (_random_box(rng, options.zoom), _random_box(rng, options.zoom)))
        start = end
        if start == total:
            return
    if start == 0:
        raise ValueError("no scenes to show: give at least one")


def _random_box(rng: np.random.Generator, zoom: float) -> Box:
    side = 1 / rng.uniform(1, zoom)
    left, top = rng.uniform(0, 1 - side, 2)
    return np.array([left, top, left + side, top + side])


Planes = tuple[Plane, Plane, Plane]


def _frames(shots: Iterator[_Shot], options: VideoOptions) -> Iterator[tuple[_Shot, Iterator[Planes]]]:
    """For each shot yield it with its frames, the fade into the next shot included; consume them in order."""
    half = options.fade * options.fps / 2
    before: _Showing | None = None
    now = next(shots, None)
    showing = None if now is None else _Showing(now, half, options)
    while now is not None and showing is not None:
        after = next(shots, None)
        showing_after = None if after is None else _Showing(after, half, options)
        yield now, _one_shot(now, before, showing, showing_after, half)
        before, now, showing = showing, after, showing_after


def _one_shot(
    shot: _Shot, before: _Showing | None, showing: _Showing, after: _Showing | None, half: float
) -> Iterator[Planes]:
    for number in range(shot.start, shot.end):
        frame = showing.at(number)
        if before is not None and number < shot.start + half:
            share = (number - shot.start + half) / (2 * half)
            frame = _blend(before.at(number), frame, share)
        elif after is not None and number > shot.end - half:
            share = (number - shot.end + half) / (2 * half)
            frame = _blend(frame, after.at(number), share)
        yield frame


def _blend(first: Planes, second: Planes, share: float) -> Planes:
    """Mix two pictures; `share` is the weight of the second."""
    weight = np.uint16(round(256 * share))
    y, u, v = (
        ((a * (np.uint16(256) - weight) + b * weight) >> np.uint16(8)).astype(np.uint8)
        for a, b in zip(first, second, strict=True)
    )
    return y, u, v


# ---- pictures


class _Showing:
    """A photograph under its pan and zoom, as YUV planes of the video's size."""

    def __init__(self, shot: _Shot, half_fade: float, options: VideoOptions) -> None:
        self._size = (options.width, options.height)
        self._first, self._last = shot.boxes
        self._begin = shot.start - half_fade
        self._length = shot.end + half_fade - self._begin
        self._planes = [Image.fromarray(plane) for plane in _photograph_planes(shot.scene, options)]

    def at(self, number: int) -> Planes:
        """Return the planes of frame `number`: (H, W), (H/2, W/2), (H/2, W/2) uint8."""
        share = (number - self._begin) / self._length
        eased = share * share * (3 - 2 * share)
        box = self._first + (self._last - self._first) * eased
        width, height = self._size
        y, u, v = (
            np.asarray(
                plane.resize(
                    size, Image.Resampling.BILINEAR, box=tuple(box * np.array([plane.width, plane.height] * 2))
                )
            )
            for plane, size in zip(self._planes, [(width, height), *[(width // 2, height // 2)] * 2], strict=True)
        )
        return y, u, v


def _photograph_planes(scene: Scene, options: VideoOptions) -> Planes:
    """Load a photograph, fit it to the frame's aspect and convert it to YUV 4:2:0 planes."""
    picture = Image.open(scene.image) if isinstance(scene.image, Path) else Image.fromarray(scene.image)
    picture = picture.convert("RGB")
    box = (0.0, 0.0, float(picture.width), float(picture.height))
    if scene.fit == "cover":
        box = _cover_box(picture.width, picture.height, options.width / options.height, scene.focus)
    # Pixels are of use up to the zoom. A smaller photograph keeps its own: they are the quickest to resize from.
    width, height = (
        2 * max(1, round(min(length, shown * options.zoom) / 2))
        for length, shown in zip((box[2] - box[0], box[3] - box[1]), (options.width, options.height), strict=True)
    )
    fitted = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box))
    yuv: Any = av.VideoFrame.from_ndarray(fitted, format="rgb24").reformat(format="yuv420p").to_ndarray()
    flat: Plane = yuv.reshape(-1)
    luma, chroma = width * height, width * height // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(half),
        flat[luma + chroma :].reshape(half),
    )


def _cover_box(width: int, height: int, aspect: float, focus: tuple[float, float]) -> tuple[float, float, float, float]:
    """Return the largest box of the given aspect in a picture, as near to its focus as the edges allow."""
    box_width, box_height = min(width, height * aspect), min(height, width / aspect)
    left = min(max(focus[0] * width - box_width / 2, 0.0), width - box_width)
    top = min(max(focus[1] * height - box_height / 2, 0.0), height - box_height)
    return left, top, left + box_width, top + box_height


class _NoiseBank:
    """Camera noise: one large field of Gaussian noise, looked at in another place for every frame."""

    def __init__(self, options: VideoOptions, rng: np.random.Generator) -> None:
        self._rng = rng
        self._shape = (options.height, options.width)
        self._field: npt.NDArray[np.int16] | None = None
        if options.noise:
            field = rng.normal(0, options.noise, (2 * options.height, 2 * options.width))
            self._field = field.round().astype(np.int16)

    def add(self, luma: Plane) -> Plane:
        """Return the (H, W) uint8 plane with noise, or the plane itself where there is none to add."""
        if self._field is None:
            return luma
        height, width = self._shape
        top, left = self._rng.integers(0, [height, width])
        noisy: Plane = np.clip(luma + self._field[top : top + height, left : left + width], 0, 255).astype(np.uint8)
        return noisy


class _Encoder:
    """Writes YUV frames to an MP4 file, one after the other."""

    def __init__(self, path: Path, options: VideoOptions) -> None:
        self._options = options
        self._container = av.open(str(path), "w", format="mp4")
        x264 = {"crf": str(options.crf), "preset": options.preset}
        self._stream: Any = self._container.add_stream("libx264", rate=options.fps, options=x264)
        self._stream.width, self._stream.height = options.width, options.height
        self._stream.pix_fmt = "yuv420p"
        # One thread: more of them make other bytes, and the caller may write several videos at once.
        self._stream.codec_context.thread_count = 1
        # One frame is written over and over: libx264 copies what it is given before `encode` returns.
        self._frame = av.VideoFrame(options.width, options.height, "yuv420p")
        self._views = [
            np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            for plane in self._frame.planes
        ]
        self._written = 0

    def write(self, planes: Planes) -> None:
        for view, plane in zip(self._views, planes, strict=True):
            view[...] = plane
        self._frame.pts, self._frame.time_base = self._written, Fraction(1, self._options.fps)
        self._container.mux(self._stream.encode(self._frame))
        self._written += 1

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
