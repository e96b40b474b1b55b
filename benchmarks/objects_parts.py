"""What the parts of `objects.py` share: scenes as tower and detector see them, trackers, and their worlds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onlooker.operators.contract import Context, Inputs, Operator, Outputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.events import Event
from onlooker.operators.objects.detector_node import ObjectDetector
from onlooker.operators.objects.metrics.event_log import told_tracks
from onlooker.operators.objects.metrics.world import Boxes, World, box_iou
from onlooker.operators.objects.tracker_node import ObjectTracker
from onlooker.operators.packets import Detections, Events, FeatureMaps, Frame, Packet
from onlooker.operators.tower.node import ClipTower
from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.pseudo_video import PseudoVideo, SceneOptions, draw_scene

__all__ = [
    "Eyes",
    "KeptTracker",
    "OwnTracker",
    "Row",
    "Scene",
    "Seen",
    "Tracker",
    "bar",
    "draw",
    "joined",
    "opened",
    "true_detections",
    "truth_rows",
]

Floats = npt.NDArray[np.float32]

SEEN = 0.25
"""Share of an object that has to be visible for it to be asked for."""


def opened(cls: type[Operator[Any]], **config: Any) -> Any:
    """An operator that is ready."""
    operator = cls(cls.Config(**config))
    operator.open(Context())
    return operator


def bar(rows: Sequence[Any], what: str) -> Iterator[Any]:
    """The rows, behind a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(rows, what, console=console, transient=True, disable=not console.is_terminal)


# ---- scenes


@dataclass(frozen=True)
class Scene:
    """A drawn video."""

    name: str
    video: PseudoVideo


@dataclass(frozen=True)
class Seen:
    """What the tower made of a video."""

    features: list[FeatureMaps]
    frames: list[Frame]
    """What it saw."""


def draw(bank: ObjectBank, count: int, first_seed: int, options: SceneOptions, what: str) -> Iterator[Scene]:
    """Scenes of a bank, one for each seed."""
    for seed in bar(range(first_seed, first_seed + count), what):
        yield Scene(f"scene{seed}", draw_scene(bank, np.random.default_rng(seed), options))


class Eyes:
    """Tower and detector, as the graph has them."""

    def __init__(
        self, model: str, tower: str, *, least_score: float | None = None, most: int = 16, batch: int = 4
    ) -> None:
        """Load both; `least_score` and `most` are the detector's, `batch` is of both."""
        self._tower = opened(ClipTower, model=tower, batch=batch)
        self._detector = opened(ObjectDetector, model=model, least_score=least_score, most=most, batch=batch)

    def see(self, name: str, frames: npt.NDArray[np.uint8], fps: float) -> Seen:
        """One pass of the tower over (T, H, W, 3) frames."""
        size = (frames.shape[2], frames.shape[1])
        packets = [Frame(name, 0, i / fps, pixels, i, size) for i, pixels in enumerate(frames)]
        ((_, out),) = self._tower.process_batch([None], [_inputs(frames=packets)])
        return Seen(out.packets["features"], packets)

    def detect(self, seen: Seen, proposals: Sequence[Detections] | None = None) -> list[Detections]:
        """The objects of each frame, or those that are given, with features."""
        given = _inputs(features=seen.features, **({} if proposals is None else {"proposals": proposals}))
        ((_, out),) = self._detector.process_batch([None], [given])
        found: list[Detections] = out.packets["detections"]
        return found


def _inputs(**packets: Sequence[Packet]) -> Inputs:
    t = max((packet.t for own in packets.values() for packet in own), default=0.0)
    return Inputs(packets, t, t)


def true_detections(scene: Scene, seen: Seen) -> list[Detections]:
    """What a detector without fault would find: the objects that can be seen, all with score 1."""
    height, width = scene.video.frames.shape[1:3]
    sides = np.array([width, height] * 2, np.float32)
    found = []
    for packet, boxes, visible in zip(seen.features, scene.video.boxes, scene.video.visible, strict=True):
        there = (boxes[visible >= SEEN] / sides).astype(np.float32)
        found.append(Detections(packet.stream, packet.epoch, packet.t, there, np.ones(len(there), np.float32)))
    return found


# ---- trackers


@dataclass(frozen=True)
class Row:
    """A box of a track in a frame."""

    frame: int
    box: tuple[float, float, float, float]
    """Left, top, width, height as parts of the picture."""
    track: int
    caption: str = ""


class Tracker(Protocol):
    """Gives the detections of a video identities."""

    def __call__(self, detections: Sequence[Detections], seen: Seen, fps: float) -> list[Row]:
        """Follow what was detected in the frames of one video."""
        ...


class OwnTracker:
    """The operator of this package."""

    def __init__(self, **config: Any) -> None:
        """Load it; the settings are its own."""
        self.operator: ObjectTracker = opened(ObjectTracker, **config)

    def __call__(self, detections: Sequence[Detections], seen: Seen, fps: float) -> list[Row]:
        events = self.events(detections, seen.frames if self.operator.config.captioner else None, fps)
        return [
            Row(
                round(point.t * fps),
                (point.x0, point.y0, point.x1 - point.x0, point.y1 - point.y0),
                number,
                track.caption,
            )
            for number, track in enumerate(told_tracks(events).values())
            for point in track.points
        ]

    def events(self, detections: Sequence[Detections], frames: Sequence[Frame] | None, fps: float) -> list[Event]:
        """What the operator tells of a video, frame by frame as live."""
        state = self.operator.initial_state(detections[0].stream)
        told: list[Event] = []
        for i, packet in enumerate(detections):
            own = _inputs(detections=[packet], **({} if frames is None else {"frames": [frames[i]]}))
            state, out = self.operator.process(state, own)
            told += _events(out)
        _, out = self.operator.flush(state, len(detections) / fps)
        return told + _events(out)


def _events(out: Outputs) -> list[Event]:
    return [event for packet in out.packets.get("events", ()) if isinstance(packet, Events) for event in packet.events]


class KeptTracker:
    """A tracker by IoU and Kalman filter of the package `trackers`, which is kept by others (Apache-2.0)."""

    def __init__(self, name: str, **options: Any) -> None:
        """Name its class and options.

        Raises:
            OnlookerError: the package is not installed.
        """
        try:
            import supervision
            import trackers
        except ImportError as error:
            raise OnlookerError("the other trackers need the package trackers: pip install 'trackers>=2.6'.") from error
        self._detections = supervision.Detections
        self._make = getattr(trackers, name)
        self._options = options

    def __call__(self, detections: Sequence[Detections], seen: Seen, fps: float) -> list[Row]:
        tracker = self._make(frame_rate=fps, **self._options)
        rows = []
        for frame, packet in enumerate(detections):
            given = self._detections(
                xyxy=packet.boxes.astype(np.float64) * _PIXELS,
                confidence=packet.scores.astype(np.float64),
                class_id=np.zeros(len(packet.scores), int),
            )
            told = tracker.update(given)
            for (x0, y0, x1, y1), identity in zip(told.xyxy / _PIXELS, told.tracker_id, strict=True):
                if identity >= 0:  # -1 = no track yet
                    rows.append(Row(frame, (float(x0), float(y0), float(x1 - x0), float(y1 - y0)), int(identity)))
        return rows


_PIXELS = 1000.0
"""A Kalman filter's noise is in pixels; boxes are parts of the picture."""


def shuffled(detections: Sequence[Detections], rng: np.random.Generator) -> list[Detections]:
    """The same boxes with the features of others of the same video: a twin that cannot tell objects apart."""
    counts = [len(packet.scores) for packet in detections]
    order = rng.permutation(sum(counts))
    features, looks = (
        np.split(np.concatenate(own)[order], np.cumsum(counts)[:-1])
        for own in zip(*(_appearance(packet) for packet in detections), strict=True)
    )
    return [replace(p, features=f, looks=k) for p, f, k in zip(detections, features, looks, strict=True)]


def _appearance(packet: Detections) -> tuple[Floats, Floats]:
    assert packet.features is not None and packet.looks is not None, "detections of an object_detector have both"
    return packet.features, packet.looks


# ---- worlds


def truth_rows(scene: Scene, captions: Sequence[str] | None = None) -> list[Row]:
    """The objects of a scene as far as they can be seen; `captions` one for each object."""
    height, width = scene.video.frames.shape[1:3]
    sides = np.array([width, height] * 2)
    texts = captions or [""] * len(scene.video.ids)
    rows = []
    for frame, (boxes, visible) in enumerate(zip(scene.video.boxes, scene.video.visible, strict=True)):
        for i in np.flatnonzero(visible >= SEEN).tolist():
            x0, y0, x1, y1 = (boxes[i] / sides).tolist()
            rows.append(Row(frame, (x0, y0, x1 - x0, y1 - y0), int(scene.video.ids[i]), texts[i]))
    return rows


@dataclass
class Worlds:
    """Collects scenes for one tracker."""

    videos: list[str] = field(default_factory=list)
    truth: list[Row] = field(default_factory=list)
    told: list[Row] = field(default_factory=list)

    def add(self, name: str, frames: int, truth: Sequence[Row], told: Sequence[Row]) -> None:
        """One more video."""
        first = len(self.videos)
        self.videos += [name] * frames
        self.truth += [replace(row, frame=first + row.frame) for row in truth]
        self.told += [replace(row, frame=first + row.frame) for row in told]

    def world(self) -> World:
        """All of them."""
        return World(tuple(self.videos), joined(self.truth), joined(self.told))


def joined(rows: Sequence[Row]) -> Boxes:
    """Rows as boxes; every one told counts."""
    return Boxes.make(
        [row.frame for row in rows],
        [row.box for row in rows],
        [row.track for row in rows],
        captions=[row.caption for row in rows],
    )


def owners(truth: Sequence[Row], told: Sequence[Row], least: float = 0.5) -> dict[tuple[int, int], int]:
    """(Frame, true track) -> the track told whose box overlaps it most, by at least `least`."""
    found: dict[tuple[int, int], int] = {}
    by_frame: dict[int, list[Row]] = {}
    for row in told:
        by_frame.setdefault(row.frame, []).append(row)
    for row in truth:
        others = by_frame.get(row.frame, [])
        if others:
            overlap = box_iou(np.array([row.box]), np.array([other.box for other in others]))[0]
            if overlap.max() >= least:
                found[row.frame, row.track] = others[int(overlap.argmax())].track
    return found
