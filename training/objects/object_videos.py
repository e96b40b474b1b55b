"""Generated videos of objects as files: an MP4, and beside it a JSON file that tells where every object is.

    truth = write_objects(bank, "dev07.mp4", seed=7)
    truth.tracks[0].captions, truth.tracks[0].boxes

The truth is in seconds and shares of the picture, as the events of the pipeline are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from onlooker.training.files import whole_file
from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.pseudo_video import DrawnFrame, SceneOptions, ScenePlan, draw_frames, plan_scene

__all__ = ["VIDEO", "ObjectTruth", "SeenBox", "TrackTruth", "read_objects", "write_objects"]

VIDEO = SceneOptions(width=640, height=360, fps=12.0, seconds=20.0)
"""For files, which are sampled at 2 fps."""


class SeenBox(NamedTuple):
    """Where an object is at a moment."""

    t: float
    x0: float
    y0: float
    x1: float
    y1: float
    """Box of what can be seen, as shares of the picture."""
    visible: float
    """Share of the object that can be seen."""


@dataclass(frozen=True)
class TrackTruth:
    """One object of a video."""

    track: int
    file: str
    """The photograph that it comes from."""
    kind: str
    captions: tuple[str, ...]
    """Of that photograph; they tell of more than the object, unless `kind` is `photograph`."""
    boxes: tuple[SeenBox, ...]
    """One for each frame in which anything of it can be seen."""


@dataclass(frozen=True)
class ObjectTruth:
    """Everything that is known about a generated video."""

    video: str
    fps: float
    duration: float
    seed: int
    tracks: tuple[TrackTruth, ...]


def write_objects(
    bank: ObjectBank, path: str | Path, *, seed: int, options: SceneOptions = VIDEO, crf: int = 23
) -> ObjectTruth:
    """Write a video and its truth (`.json` in place of the suffix); the same bank, seed and options give the same.

    Args:
        bank: where objects come from.
        path: the MP4 to write; it appears under this name once it is complete.
        seed: of everything that is drawn.
        options: of the scene; sides must be even.
        crf: x264's quality.

    Raises:
        ValueError: a side is odd, or the bank has too little for the options.
    """
    if options.width % 2 or options.height % 2:
        raise ValueError(f"width and height must be even, got {options.width}x{options.height}")
    path = Path(path)
    plan = plan_scene(bank, np.random.default_rng(seed), options)
    seen: list[list[SeenBox]] = [[] for _ in plan.objects]
    with whole_file(path) as part:
        _encode(_noted(draw_frames(bank, plan, options), seen, options), part, options, crf)
    truth = _truth(bank, plan, seen, path.name, options, seed)
    path.with_suffix(".json").write_text(json.dumps(asdict(truth), ensure_ascii=False) + "\n", encoding="utf-8")
    return truth


def read_objects(path: str | Path) -> ObjectTruth:
    """Read the truth that `write_objects` left beside a video."""
    data = json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8"))
    tracks = tuple(
        TrackTruth(
            **(row | {"captions": tuple(row["captions"]), "boxes": tuple(SeenBox(*box) for box in row["boxes"])})
        )
        for row in data.pop("tracks")
    )
    return ObjectTruth(tracks=tracks, **data)


def _noted(frames: Iterator[DrawnFrame], seen: list[list[SeenBox]], options: SceneOptions) -> Iterator[DrawnFrame]:
    """Pass frames on and note what can be seen in them."""
    sides = np.array([options.width, options.height] * 2)
    for number, frame in enumerate(frames):
        for boxes, box, visible in zip(seen, frame.boxes, frame.visible, strict=True):
            if visible > 0:
                x0, y0, x1, y1 = np.round(box / sides, 4).tolist()
                boxes.append(SeenBox(round(number / options.fps, 6), x0, y0, x1, y1, round(float(visible), 4)))
        yield frame


def _truth(
    bank: ObjectBank, plan: ScenePlan, seen: list[list[SeenBox]], name: str, options: SceneOptions, seed: int
) -> ObjectTruth:
    tracks = tuple(
        TrackTruth(number, bank.files[thing.photograph], thing.kind, bank.captions[thing.photograph], tuple(boxes))
        for number, (thing, boxes) in enumerate(zip(plan.objects, seen, strict=True), 1)
    )
    return ObjectTruth(name, options.fps, options.frames / options.fps, seed, tracks)


def _encode(frames: Iterator[DrawnFrame], path: Path, options: SceneOptions, crf: int) -> None:
    rate = Fraction(options.fps).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = options.width, options.height, "yuv420p"
        stream.codec_context.thread_count = 1  # more of them make other bytes
        for number, drawn in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(drawn.pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
