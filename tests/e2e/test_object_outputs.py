"""Tracks on their way from the detector to everything that people see, in one run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from onlooker.operators.events import TrackEvent, parse_event
from onlooker.pipeline.assemble import make_plan
from onlooker.pipeline.cli.main import main
from onlooker.pipeline.cli.outputs import make_sinks
from onlooker.pipeline.errors import UsageError
from onlooker.pipeline.runtime.batch import SourceSpec
from tests.objects.tracking import random_model, save
from tests.videos import write_video

RATE, SECONDS = 10, 5

GRAPH = """
name: tracked
nodes:
  decode: {use: decode, stage: decode, config: {fps: 2.0}}
  tower: {use: clip_tower, stage: models, inputs: {frames: decode.frames}, config: {model: tiny, batch: 2}}
  objects:
    {use: object_detector, stage: models, inputs: {features: tower.features}, config: {model: MODEL, least_score: 0}}
  tracks:
    use: object_tracker
    stage: models
    inputs: {detections: objects.detections}
    config: {model: MODEL, captioner: null, birth_score: 0}
"""


def cat_that_moves() -> Iterator[Any]:
    cat = np.asarray(Image.fromarray(photographs.chelsea()).resize((320, 208)))
    return (np.roll(cat, 2 * i, axis=1) for i in range(RATE * SECONDS))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrackEvent]]:
    folder = tmp_path_factory.mktemp("tracked")
    model = save(folder / "model", random_model(maps=(40, 112, 320)))
    write_video(folder / "cat.mp4", cat_that_moves(), rate=RATE)
    (folder / "graph.yaml").write_text(GRAPH.replace("MODEL", str(model)))
    outputs = {"events": "events.jsonl", "video": "seen.mp4", "report": "report.html", "mot": "tracks.txt"}
    options = [part for option, name in outputs.items() for part in (f"--{option}", str(folder / name))]
    graph = str(folder / "graph.yaml")
    assert main(["run", str(folder / "cat.mp4"), "--graph", graph, "--runner", "local", "--quiet", *options]) == 0
    events = [parse_event(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return folder, [event for event in events if isinstance(event, TrackEvent)]


def test_the_mot_file_holds_what_the_log_tells(told: tuple[Path, list[TrackEvent]]) -> None:
    folder, events = told
    wanted = {
        (round(t * RATE) + 1, event.event_no + 1, x0 * 320, y0 * 208, (x1 - x0) * 320, (y1 - y0) * 208)
        for event in events
        for t, x0, y0, x1, y1 in event.data.boxes
    }
    rows = [[float(part) for part in line.split(",")] for line in (folder / "tracks.txt").read_text().splitlines()]
    assert len(wanted) > 10 and len(rows) == len(wanted)
    assert np.allclose(np.array(rows)[:, :6], np.array(sorted(wanted)), atol=0.006)


def test_the_report_lists_the_objects(told: tuple[Path, list[TrackEvent]]) -> None:
    folder, events = told
    numbers = {event.event_no for event in events}
    page = (folder / "report.html").read_text()
    assert f">{len(numbers)} object" in page
    assert page.count("<rect ") == len({(event.event_no, point.t) for event in events for point in event.data.boxes})


def test_the_video_shows_boxes_while_there_are_objects(told: tuple[Path, list[TrackEvent]]) -> None:
    folder, events = told
    frames = []
    for name in ("cat.mp4", "seen.mp4"):
        with av.open(str(folder / name)) as container:
            frames.append([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert len(frames[0]) == len(frames[1]) == RATE * SECONDS
    first = min(event.t_start for event in events)
    for i, (plain, seen) in enumerate(zip(*frames, strict=True)):
        drawn = (np.abs(plain.astype(int) - seen).max(-1) > 60).mean()
        assert (drawn > 0.005) == (i / RATE >= first - 1e-6), i


def test_every_track_ends_once(told: tuple[Path, list[TrackEvent]]) -> None:
    ended = [event.event_no for event in told[1] if event.phase == "end"]
    assert sorted(ended) == sorted({event.event_no for event in told[1]})
    assert json.loads(told[1][0].to_json())["type"] == "onlooker.track.v1"


def test_rows_of_tracks_need_a_graph_that_follows_objects(tmp_path: Path) -> None:
    options = dict.fromkeys(("events", "vtt", "srt", "activitynet", "mot", "report", "video"))
    args = argparse.Namespace(**{**options, "mot": str(tmp_path / "tracks.txt")})
    with pytest.raises(UsageError, match="add --graph objects"):
        make_sinks(args, [SourceSpec("walk.mp4", "walk")], make_plan("file").graph)
    assert len(make_sinks(args, [SourceSpec("walk.mp4", "walk")], make_plan("objects").graph)) == 1
