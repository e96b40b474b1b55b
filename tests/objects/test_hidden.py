"""Who hides comes back as itself: drawn things, of which one is behind a wall for two seconds; the tower sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onlooker.operators.contract import Context, Inputs
from onlooker.operators.objects.detector_node import ObjectDetector, ObjectDetectorConfig
from onlooker.operators.objects.tracker_node import ObjectTracker, ObjectTrackerConfig
from onlooker.operators.packets import Detections, Frame
from onlooker.operators.tower.node import ClipTower

from .tracking import run

SIDE, FPS, FRAMES = 224, 2.0, 16
WALL = (82, 40, 142, 190)
"""x0, y0, x1, y1, and in front of everything but the last thing."""
HIDDEN = range(6, 10)
"""Frames: two seconds."""
SEEDS = range(4)

Scene = list[tuple[Any, dict[int, tuple[int, int, int, int]]]]
"""Of each frame the picture (H, W, 3) and the boxes of what can be seen of each thing."""


def pattern(rng: np.random.Generator, width: int, height: int, cells: int = 4) -> Any:
    """A piece of cloth that no other one is like."""
    few = rng.integers(0, 255, (cells, cells, 3), np.uint8)
    return np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))


def drawn(seed: int) -> Scene:
    """Thing 0 goes behind the wall and comes back; 1 and 2 pass in the meantime, 1 behind it too."""
    rng = np.random.default_rng(seed)
    background, wall = pattern(rng, SIDE, SIDE, 3), pattern(rng, WALL[2] - WALL[0], WALL[3] - WALL[1], 2)
    things = [pattern(rng, 44, 70) for _ in range(3)]
    scene = []
    for t in range(FRAMES):
        away = max(HIDDEN.start - t, t - HIDDEN.stop + 1, 0)
        places = [(90 - 24 * min(away, 5), 60), (224 - 14 * t, 100), (16 * t - 40, 135)]
        owner = np.full((SIDE, SIDE), -1)
        canvas = background.copy()
        for number in (0, 1, None, 2):
            x, y = WALL[:2] if number is None else places[number]
            piece = wall if number is None else things[number]
            x0, x1 = max(0, x), min(SIDE, x + piece.shape[1])
            if x0 < x1:
                canvas[y : y + len(piece), x0:x1] = piece[:, x0 - x : x1 - x]
                owner[y : y + len(piece), x0:x1] = 9 if number is None else number
        boxes = {}
        for number, thing in enumerate(things):
            rows, columns = np.nonzero(owner == number)
            if len(rows) > 0.25 * thing.shape[0] * thing.shape[1]:
                boxes[number] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        scene.append((canvas, boxes))
    assert [t for t, (_, boxes) in enumerate(scene) if 0 not in boxes] == list(HIDDEN)
    return scene


@pytest.fixture(scope="module")
def scenes() -> list[tuple[list[list[int]], list[Detections]]]:
    """Which things the detections of each frame are, and the detections, as the embedded models see them."""
    tower = ClipTower(ClipTower.Config(model="tiny"))
    detector = ObjectDetector(ObjectDetectorConfig(model="tiny"))
    for operator in (tower, detector):
        operator.open(Context())
    found = []
    for seed in SEEDS:
        scene = drawn(seed)
        frames = [Frame("s", 0, t / FPS, picture, t, (SIDE, SIDE)) for t, (picture, _) in enumerate(scene)]
        boxes = [np.array(list(b.values()), np.float32).reshape(-1, 4) / SIDE for _, b in scene]
        true = [Detections("s", 0, t / FPS, b, np.ones(len(b), np.float32)) for t, b in enumerate(boxes)]
        _, outputs = tower.process(None, Inputs({"frames": frames}, FRAMES / FPS, FRAMES / FPS))
        given = {"features": outputs.packets["features"], "proposals": true}
        _, outputs = detector.process(None, Inputs(given, FRAMES / FPS, FRAMES / FPS))
        found.append(([list(b) for _, b in scene], outputs.packets["detections"]))
    return found


def came_back(
    scenes: Any, change: Callable[[Detections], Detections] = lambda packet: packet, **config: Any
) -> list[bool]:
    """Of each scene, whether thing 0 is one track from the first frame to the last, and the track nothing else."""
    operator = ObjectTracker(ObjectTrackerConfig(captioner=None, **config))
    operator.open(Context())
    kept = []
    for things, packets in scenes:
        told = {
            (round(point.t * FPS), tuple(point[1:])): event.event_no
            for _, event in run(operator, [change(packet) for packet in packets])
            for point in event.data.boxes
        }
        tracks: dict[int, set[int | None]] = {}
        for t, (names, packet) in enumerate(zip(things, packets, strict=True)):
            for name, box in zip(names, packet.boxes.astype(float), strict=True):
                tracks.setdefault(name, set()).add(told.get((t, tuple(np.round(box, 4).tolist()))))
        kept.append(len(tracks[0]) == 1 and not tracks[0] & (tracks[1] | tracks[2]))
    return kept


def test_who_is_hidden_for_two_seconds_comes_back_as_itself(scenes: Any) -> None:
    assert came_back(scenes) == [True] * len(SEEDS)


def test_without_looks_it_does_not(scenes: Any) -> None:
    def blind(packet: Detections) -> Detections:
        assert packet.looks is not None
        return replace(packet, looks=np.zeros_like(packet.looks))

    assert sum(came_back(scenes, blind)) < len(SEEDS) / 2


def test_nor_with_a_window_that_is_shorter(scenes: Any) -> None:
    assert came_back(scenes, window=len(HIDDEN)) == [False] * len(SEEDS)
