"""MOT rows: the right frames, pixels and identities, whatever the source's times and the order of telling are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from onlooker.operators.contract import SourceInfo
from onlooker.pipeline.cli.main import main
from onlooker.pipeline.errors import OutputError
from onlooker.pipeline.sinks.mot import MotSink
from tests.videos import write_video

from .parts import INFO, complete, files_beside, started
from .tracks import Point, told, track

SIZE = SourceInfo("clip", 0, 80, 48, duration=4.0)


def rows(path: Path) -> list[list[float]]:
    return [[float(part) for part in line.split(",")] for line in path.read_text().splitlines()]


def test_rows_are_the_points_in_frames_and_pixels_of_the_source(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 100, rate=25)
    sink = started(MotSink(tmp_path / "out.txt"), str(source), SIZE)
    first: list[Point] = [(0.0, 0.1, 0.25, 0.6, 0.75), (0.52, 0.2, 0.25, 0.7, 0.75), (1.0, 0.25, 0.25, 0.75, 0.75)]
    other: list[Point] = [(0.52, 0.0, 0.0, 0.5, 1.0), (2.0, 0.5, 0.0, 1.0, 1.0)]
    for event in sorted([*told(0, first), *told(7, other)], key=lambda event: event.data.t_seen):
        sink.event(event)
    complete(sink, 4.0)
    want = [
        [1, 1, 8.0, 12.0, 40.0, 24.0],
        [14, 1, 16.0, 12.0, 40.0, 24.0],
        [14, 8, 0.0, 0.0, 40.0, 48.0],
        [26, 1, 20.0, 12.0, 40.0, 24.0],
        [51, 8, 40.0, 0.0, 40.0, 48.0],
    ]
    assert rows(sink.path) == [[*row, 0.75, -1, -1, -1] for row in want]
    assert files_beside(sink.path) == ["in.mp4"]


def test_frames_are_counted_where_times_are_irregular(tmp_path: Path) -> None:
    ticks = [500, 540, 700, 710, 1900, 2500, 2503]
    source = write_video(tmp_path / "in.mp4", 7, pts=ticks, time_base=Fraction(1, 1000), rate=25)
    sink = started(MotSink(tmp_path / "out.txt"), str(source), SIZE)
    for event in told(0, [(tick / 1000, 0.0, 0.0, 0.5, 0.5) for tick in ticks]):
        sink.event(event)
    complete(sink, 3.0)
    assert [row[0] for row in rows(sink.path)] == [1, 2, 3, 4, 5, 6, 7]


def test_points_that_come_late_and_an_end_that_repeats_them(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 100, rate=25)
    sink = started(MotSink(tmp_path / "out.txt"), str(source), SIZE)
    way: list[Point] = [(t, 0.0, 0.0, 0.5, 0.5) for t in (0.0, 0.4, 0.8, 1.2)]
    sink.event(track(0, 0, "new", [way[0], way[2]], 0.8))
    sink.event(track(0, 1, "update", [way[1]], 1.2, start=0.0))
    sink.event(track(0, 2, "end", way, 9.0))
    complete(sink, 4.0)
    assert [row[0] for row in rows(sink.path)] == [1, 11, 21, 31]


def test_what_was_told_before_a_crash_is_there(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 100, rate=25)
    sink = started(MotSink(tmp_path / "out.txt"), str(source), SIZE)
    sink.event(track(0, 0, "new", [(0.0, 0.0, 0.0, 0.5, 0.5)], 0.5))
    assert len(rows(sink.path)) == 1
    sink.close()
    sink.close()
    assert len(rows(sink.path)) == 1


def test_random_tracks_come_out_in_order_and_whole(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 100, rate=25)
    rng = np.random.default_rng(0)
    sink = started(MotSink(tmp_path / "out.txt"), str(source), SIZE)
    events, expected = [], []
    for no in range(40):
        frames = sorted(rng.choice(100, int(rng.integers(1, 30)), replace=False).tolist())
        events += told(no, [(frame / 25, 0.0, 0.0, 0.5, 0.5) for frame in frames])
        expected += [(frame + 1, no + 1) for frame in frames]
    for event in sorted(events, key=lambda event: event.data.t_seen):
        sink.event(event)
    complete(sink, 4.0)
    assert [(int(row[0]), int(row[1])) for row in rows(sink.path)] == sorted(expected)


def test_sources_that_cannot_be_read_twice_are_refused(tmp_path: Path) -> None:
    sink = MotSink(tmp_path / "out.txt")
    sink.open()
    with pytest.raises(OutputError, match="read twice") as caught:
        sink.start(INFO, "rtsp://user:secret@camera/1")
    assert "secret" not in str(caught.value)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_of_a_live_source_there_are_no_frame_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_video(tmp_path / "in.mp4", 10)
    assert main(["run", str(source), "--pace", "realtime", "--mot", str(tmp_path / "out.txt")]) == 2
    assert "--mot tells of a file" in capsys.readouterr().err
    assert not (tmp_path / "out.txt").exists()
