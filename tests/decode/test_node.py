"""The decoder as a source: packets, watermarks, cursors, counters and the end."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from onlooker.operators.contract import Context, SourceOutputs
from onlooker.operators.decode import Cursor, SourceError
from onlooker.operators.decode.node import VideoSource, VideoSourceConfig
from onlooker.operators.packets import Frame
from onlooker.operators.registry import source_class
from tests.videos import cut, frame_number, write_video


def make(path: Path, **config: object) -> VideoSource:
    source = VideoSource(VideoSourceConfig(**{"width": 80, "height": 48, **config}), str(path), "cam")
    source.open(Context())
    return source


def read_all(source: VideoSource, cursor: Cursor | None = None) -> list[SourceOutputs]:
    outs = []
    cursor = cursor or source.initial_cursor()
    while not outs or outs[-1].end is None:
        cursor, out = source.read(cursor)
        outs.append(out)
    source.close()
    return outs


def frames_of(outs: list[SourceOutputs], port: str = "frames") -> list[Frame]:
    return [p for out in outs for p in out.packets.get(port, []) if isinstance(p, Frame)]


def test_it_is_registered() -> None:
    assert source_class("decode") is VideoSource


def test_packets_watermarks_and_end(tmp_path: Path) -> None:
    source = make(write_video(tmp_path / "v.mp4", 100), chunk=3, preview=24)
    outs = read_all(source)
    frames = frames_of(outs)
    assert [frame_number(f.pixels) for f in frames] == [0, 13, 25, 38, 50, 63, 75, 88]
    assert [(f.stream, f.epoch, f.index, f.source_size) for f in frames] == [("cam", 0, i, (80, 48)) for i in range(8)]
    assert [f.t for f in frames_of(outs, "previews")] == [f.t for f in frames]
    assert [len(out.packets["frames"]) for out in outs] == [3, 3, 2]
    assert [out.watermark for out in outs] == [frames[2].t, frames[5].t, 4.0]
    end = outs[-1].end
    assert end is not None and (end.reason, end.t) == ("complete", 4.0)


def test_counters_account_for_every_frame(tmp_path: Path) -> None:
    counters = read_all(make(write_video(tmp_path / "v.mp4", 100)))[-1].counters
    assert counters["frames_in"] == 100
    parts = ["frames_sampled", "frames_unsampled", "frames_dropped_non_increasing", "frames_dropped_before_zero"]
    assert sum(counters[p] for p in parts) == 100
    assert counters["frames_sampled"] == 8


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunks_change_nothing(tmp_path: Path, chunk: int) -> None:
    path = write_video(tmp_path / "v.mp4", 100)
    frames = frames_of(read_all(make(path, chunk=chunk)))
    expected = frames_of(read_all(make(path)))
    assert [(f.t, f.index) for f in frames] == [(f.t, f.index) for f in expected]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, expected, strict=True))


def test_another_process_can_go_on_from_the_cursor(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 100)
    first = make(path, chunk=3)
    cursor, out = first.read(first.initial_cursor())
    first.close()
    rest = read_all(make(path), cursor)
    expected = frames_of(read_all(make(path)))
    frames = frames_of([out, *rest])
    assert [(f.t, f.index) for f in frames] == [(f.t, f.index) for f in expected]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, expected, strict=True))


def test_reading_again_from_an_older_cursor(tmp_path: Path) -> None:
    source = make(write_video(tmp_path / "v.mp4", 100), chunk=3)
    middle, _ = source.read(source.initial_cursor())
    _, second = source.read(middle)
    _, again = source.read(middle)
    assert [f.t for f in frames_of([again])] == [f.t for f in frames_of([second])]
    source.close()


def test_interrupt_from_another_thread(tmp_path: Path) -> None:
    source = make(write_video(tmp_path / "v.mp4", 100), chunk=2)
    cursor, _ = source.read(source.initial_cursor())
    thread = threading.Thread(target=source.interrupt)
    thread.start()
    thread.join()
    _, out = source.read(cursor)
    assert out.end is not None and out.end.reason == "interrupted"
    assert out.packets["frames"] == []
    source.close()


def test_truncation_is_the_end_reason(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 200, container_options={"movflags": "faststart"})
    end = read_all(make(cut(whole, tmp_path / "v.mp4", 0.6)))[-1].end
    assert end is not None and end.reason == "truncated" and 2 < end.t < 7


def test_what_is_known_when_open(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 50, metadata={"creation_time": "2024-05-06T07:08:09Z"})
    source = VideoSource(VideoSourceConfig(), str(path), "cam")
    info = source.open(Context())
    assert (info.stream, info.epoch, info.width, info.height, info.duration) == ("cam", 0, 80, 48, 2.0)
    assert (info.wall_zero, info.time_source) == (1714979289.0, "file")
    source.close()


def test_bad_files_and_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        make(tmp_path / "v.mp4")
    with pytest.raises(ValidationError):
        VideoSourceConfig(fps=0)
