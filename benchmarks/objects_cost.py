"""Part of `objects.py`: what a frame costs, and whether it costs the same after half an hour."""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import table
from objects_association import SCENES
from objects_parts import Eyes, bar, draw, opened

from onlooker.operators.contract import Inputs
from onlooker.operators.objects.tracker_node import ObjectTracker
from onlooker.operators.packets import Detections, Frame
from onlooker.pipeline.assemble import make_plan, runner_factory, source_spec
from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.object_videos import VIDEO, write_objects

__all__ = ["cost"]

_SCENES = 6
_MINUTES = (1, 2, 5, 10, 20, 30, 60, 120)
_FILM = replace(VIDEO, seconds=60.0)
_QUERIES = ["a cat", "a dog", "a person"]
_PARTS = ("tower", "detector", "tracker", "tracker with captions")


def cost(bank: ObjectBank, model: str, tower: str, captioner: str, minutes: int, first_seed: int) -> str:
    """The tables, as Markdown."""
    eyes = Eyes(model, tower, batch=1)
    times: dict[str, list[float]] = {part: [] for part in _PARTS}
    views: list[tuple[Detections, Frame]] = []
    for scene in draw(bank, _SCENES, first_seed, SCENES, "drawing"):
        for i, pixels in enumerate(scene.video.frames):
            seen = _timed(times["tower"], eyes.see, f"{scene.name}-{i}", pixels[None], scene.video.fps)
            views.append((_timed(times["detector"], eyes.detect, seen)[0], seen.frames[0]))
    rows = []
    for part, config in (("tracker", None), ("tracker with captions", captioner)):
        tracker = opened(ObjectTracker, model=model, captioner=config, tower=tower)
        rows += _stream(part, tracker, views, minutes, times[part])
    shares = [[part, float(np.median(own)), float(np.quantile(own, 0.95))] for part, own in times.items()]
    graphs = _graphs(bank, model, tower, captioner, first_seed)
    density = np.mean([len(found.scores) for found, _ in views])
    return "\n\n".join(
        [
            table(["part", "ms a frame", "95 %"], shares),
            table(["graph", "seconds of video a second"], graphs),
            table(["stream", "minute", "ms a frame", "95 %", "state, KB", "process, MB"], rows),
            f"The graphs read a generated video of {_FILM.seconds:g} s, {_FILM.width}x{_FILM.height} pixels, with two "
            "workers of one thread each; loading models does not count. Above 1 is faster than real time. The rest: "
            f"one thread, one frame at a time, {SCENES.fps:g} frames a second: real time leaves "
            f"{1000 / SCENES.fps:.0f} ms a frame. The stream repeats {_SCENES} scenes, about {density:.1f} detections "
            "a frame; each minute's figures are of the frames of that minute. The state is measured as it would be "
            "saved.",
        ]
    )


def _graphs(bank: ObjectBank, model: str, tower: str, captioner: str, seed: int) -> list[list[object]]:
    """Speed of the whole graph, with objects and without."""
    objects = [f"{node}.model={model}" for node in ("objects", "tracks")] + [f"tracks.captioner={captioner}"]
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "objects.mp4"
        write_objects(bank, video, seed=seed, options=_FILM)
        for name, overrides in (("file", []), ("objects", objects)):
            graph = make_plan(name, model=tower, queries=_QUERIES, overrides=overrides).graph
            begin, first, frames = 0.0, 0, 0
            for batch in runner_factory("local")(graph, frozenset()).run([source_spec(str(video))]):
                frames = batch.counters.get("frames_sampled", frames)
                if not begin and frames:
                    begin, first = time.perf_counter(), frames
            rows.append([name, (frames - first) / SCENES.fps / (time.perf_counter() - begin)])
    return rows


def _timed(times: list[float], call: Any, *arguments: Any) -> Any:
    """Call, and note the milliseconds."""
    begin = time.perf_counter()
    result = call(*arguments)
    times.append(1000 * (time.perf_counter() - begin))
    return result


def _stream(
    name: str,
    tracker: ObjectTracker,
    views: Sequence[tuple[Detections, Frame]],
    minutes: int,
    times: list[float],
) -> list[list[object]]:
    """Run a stream and tell of some of its minutes; the times of all frames go to `times`."""
    fps, rows = SCENES.fps, []
    state = tracker.initial_state("stream")
    per_minute = round(60 * fps)
    for frame in bar(range(minutes * per_minute), name):
        found, shown = (replace(packet, stream="stream", t=frame / fps) for packet in views[frame % len(views)])
        given = Inputs({"detections": [found], "frames": [shown]}, frame / fps, frame / fps)
        state, _ = _timed(times, tracker.process, state, given)
        minute, rest = divmod(frame + 1, per_minute)
        if not rest and (minute in _MINUTES or minute == minutes):
            own = times[-per_minute:]
            size = len(pickle.dumps(state)) / 1024
            rows.append(
                [name, minute, float(np.median(own)), float(np.quantile(own, 0.95)), f"{size:.0f}", _resident()]
            )
    return rows


def _resident() -> str:
    """Memory of this process that is in use, MB; empty where the system does not tell."""
    path = Path("/proc/self/statm")
    if not path.exists():
        return ""
    return f"{int(path.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f}"
