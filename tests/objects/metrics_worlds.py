"""Small worlds whose scores can be told by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onlooker.operators.objects.metrics.world import Boxes, World

Row = tuple[int, tuple[float, float, float, float], int, str]
"""Frame, box (left, top, width, height), track, caption."""


def boxes(rows: Sequence[Row], scores: Sequence[float] | None = None) -> Boxes:
    frames, places, tracks, captions = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Boxes.make(frames, places, tracks, scores, captions)


def world(truth: Sequence[Row], told: Sequence[Row], frames: int, scores: Sequence[float] | None = None) -> World:
    return World(("v",) * frames, boxes(truth), boxes(told, scores))


def walk(frames: int, track: int, left: float, caption: str) -> list[Row]:
    """An object that moves to the right."""
    return [(t, (left + 2.0 * t, 10.0, 20.0, 40.0), track, caption) for t in range(frames)]


def crowd(rng: np.random.Generator, videos: int = 4, frames: int = 12) -> World:
    """Walkers with captions, and what a poor tracker makes of them."""
    truth: list[Row] = []
    told: list[Row] = []
    for video in range(videos):
        for track in range(int(rng.integers(1, 5))):
            first = video * frames
            way = [(first + t, box, track, text) for t, box, _, text in walk(frames, track, 30.0 * track, f"a {track}")]
            truth += way
            for frame, box, _, text in way:
                if rng.random() < 0.8:
                    moved = tuple(float(v) for v in np.add(box, rng.normal(0, 2, 4)))
                    name = track if rng.random() < 0.8 else int(rng.integers(0, 6))
                    told.append((frame, (moved[0], moved[1], moved[2], moved[3]), 10 + name, text))
    names = tuple(f"v{i // frames}" for i in range(videos * frames))
    return World(names, boxes(truth), boxes(told, rng.uniform(0.4, 1, len(told)).tolist()))
