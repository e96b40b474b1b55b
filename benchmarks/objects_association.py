"""Part of `objects.py`: who is who, on generated videos in which objects cross and hide, beside trackers by IoU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from common import table
from objects_parts import (
    Eyes,
    KeptTracker,
    OwnTracker,
    Row,
    Scene,
    Seen,
    Tracker,
    Worlds,
    draw,
    owners,
    shuffled,
    true_detections,
    truth_rows,
)

from onlooker.operators.objects.metrics.mot import mot_scores
from onlooker.operators.packets import Detections
from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.pseudo_video import SceneOptions

__all__ = ["association"]

SCENES = SceneOptions(seconds=20.0, objects=(3, 5), crossings=1, hidden=1, hide_seconds=(2.0, 2.0))
"""Two cross, and one hides for two seconds; frames and rate are those of the graph."""

_GONE = 0.1
"""Share of an object below which it is hidden."""
_FRAMES = 3
"""Frames that a gap has at least, and within which an object has to be found before and after it."""
_LOST = 8.0
"""Seconds for which the kept trackers remember who is lost: the window of ours."""


@dataclass
class _Result:
    """What a tracker did on all scenes."""

    worlds: Worlds = field(default_factory=Worlds)
    kept: int = 0
    """Objects that came back from behind something as themselves."""
    seconds: float = 0.0
    hota: list[float] = field(default_factory=list)
    """Of each scene."""


def association(bank: ObjectBank, model: str, tower: str, scenes: int, first_seed: int) -> str:
    """Both tables, as Markdown: on what our detector finds, and on what is true."""
    eyes, trackers = Eyes(model, tower), _trackers(model)
    results: dict[str, dict[str, _Result]] = {kind: {} for kind in ("detector", "truth")}
    asked = dict.fromkeys(results, 0)
    for scene in draw(bank, scenes, first_seed, SCENES, "association"):
        seen = eyes.see(scene.name, scene.video.frames, scene.video.fps)
        truth = truth_rows(scene)
        given = {"detector": eyes.detect(seen), "truth": eyes.detect(seen, true_detections(scene, seen))}
        for kind, detections in given.items():
            gaps = _gaps(scene, truth, detections)
            asked[kind] += len(gaps)
            for name, tracker in trackers.items():
                result = results[kind].setdefault(name, _Result())
                _follow(result, tracker, detections, scene, seen, truth, gaps)
            twin = shuffled(detections, np.random.default_rng(0))
            result = results[kind].setdefault("twin: features of other objects", _Result())
            _follow(result, trackers["onlooker"], twin, scene, seen, truth, gaps)
    parts = [
        _told(heading, results[kind], asked[kind], scenes)
        for kind, heading in (("detector", "Detections of our detector"), ("truth", "Detections without fault"))
    ]
    return "\n\n".join([*parts, _NOTE])


def _trackers(model: str) -> dict[str, Tracker]:
    """Ours, and the kept ones as they come and as they do best at two frames a second."""
    patient = {"lost_track_buffer": round(30 * _LOST), "minimum_consecutive_frames": 1}
    sure = {"track_activation_threshold": 0.3, "high_conf_det_threshold": 0.3}
    return {
        "onlooker": OwnTracker(model=model, captioner=None),
        "SORT, as it comes": KeptTracker("SORTTracker"),
        "SORT, patient": KeptTracker("SORTTracker", minimum_iou_threshold=0.1, **patient),
        "ByteTrack, as it comes": KeptTracker("ByteTrackTracker"),
        "ByteTrack, patient": KeptTracker("ByteTrackTracker", **patient, **sure),
        "OC-SORT, patient": KeptTracker(
            "OCSORTTracker", minimum_iou_threshold=0.1, high_conf_det_threshold=0.3, **patient
        ),
        "C-BIoU, patient": KeptTracker("CBIoUTracker", **patient, **sure),
    }


def _follow(
    result: _Result,
    tracker: Tracker,
    detections: Sequence[Detections],
    scene: Scene,
    seen: Seen,
    truth: Sequence[Row],
    gaps: Sequence[_Gap],
) -> None:
    """Add what a tracker makes of a scene."""
    begin = time.perf_counter()
    told = tracker(detections, seen, scene.video.fps)
    result.seconds += time.perf_counter() - begin
    alone = Worlds()
    for worlds in (alone, result.worlds):
        worlds.add(scene.name, len(detections), truth, told)
    result.hota.append(mot_scores(alone.world())["HOTA"])
    found = owners(truth, told)
    for gap in gaps:
        before = [found.get((frame, gap.track)) for frame in gap.before]
        after = [found.get((frame, gap.track)) for frame in gap.after]
        last = next((identity for identity in reversed(before) if identity is not None), None)
        result.kept += last is not None and last == next((i for i in after if i is not None), None)


@dataclass(frozen=True)
class _Gap:
    """An object that was hidden, and the frames before and after in which it was detected."""

    track: int
    before: tuple[int, ...]
    after: tuple[int, ...]


def _gaps(scene: Scene, truth: Sequence[Row], detections: Sequence[Detections]) -> list[_Gap]:
    """The gaps that any tracker could bridge: of objects that were detected shortly before and shortly after."""
    found = owners(truth, _rows(detections))
    gaps = []
    for track, visible in zip(scene.video.ids.tolist(), scene.video.visible.T, strict=True):
        hidden = np.concatenate([[False], visible < _GONE, [False]])
        edges = np.flatnonzero(np.diff(hidden.astype(int))).reshape(-1, 2)
        for start, end in edges.tolist():
            before = tuple(f for f in range(max(0, start - _FRAMES), start) if (f, track) in found)
            after = tuple(f for f in range(end, min(end + _FRAMES, len(visible))) if (f, track) in found)
            if end - start >= _FRAMES and before and after:
                gaps.append(_Gap(track, before, after))
    return gaps


def _rows(detections: Sequence[Detections]) -> list[Row]:
    return [
        Row(frame, (float(x0), float(y0), float(x1 - x0), float(y1 - y0)), i)
        for frame, packet in enumerate(detections)
        for i, (x0, y0, x1, y1) in enumerate(packet.boxes)
    ]


_COLUMNS = ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "IDSW")


def _told(heading: str, results: dict[str, _Result], asked: int, scenes: int) -> str:
    rows = []
    for name, result in results.items():
        scores = mot_scores(result.worlds.world())
        wins = sum(own > other for own, other in zip(results["onlooker"].hota, result.hota, strict=True))
        rows.append(
            [
                name,
                *(scores[column] for column in _COLUMNS),
                f"{result.kept}/{asked}",
                "" if name == "onlooker" else f"{wins}/{scenes}",
                f"{1000 * result.seconds / len(result.worlds.videos):.1f}",
            ]
        )
    columns = ["tracker", *_COLUMNS, "came back as themselves", "scenes where ours has more HOTA", "ms a frame"]
    return f"## {heading}\n\n" + table(columns, rows)


_NOTE = (
    f"Scenes of {SCENES.seconds:g} s at {SCENES.fps:g} frames a second, {SCENES.objects[0]} to {SCENES.objects[1]} "
    f"things that move, of which two cross and one hides for {SCENES.hide_seconds[0]:g} s; things of the "
    "background count too. All trackers get the same boxes, ours with features and looks of them. HOTA, IDF1 and "
    "MOTA are by the package `trackers`, which also has the other trackers. C-BIoU enlarges boxes, for objects "
    'that move far between frames. "As it comes" is with the settings of the package at this frame rate; "patient" '
    f"remembers who is lost for {_LOST:g} s, as ours does, tells tracks from their first box, and takes smaller "
    'overlaps. Asked for are objects of which at least a quarter can be seen. "Came back": of objects that were '
    f"hidden for {_FRAMES} frames or more and were detected within {_FRAMES} frames before and after, how many "
    "have the same identity; objects also hide behind one another."
)
