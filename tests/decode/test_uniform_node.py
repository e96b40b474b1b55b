"""A file as a fixed number of frames, as a source of the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onlooker.operators.contract import Context, SourceOutputs
from onlooker.operators.decode import SourceError
from onlooker.operators.decode.random_access import sample_uniform
from onlooker.operators.decode.uniform_node import UniformSource, UniformSourceConfig
from onlooker.operators.packets import Frame
from onlooker.operators.registry import source_class
from tests.videos import cut, frame_number, write_video


def make(path: Path, *, previews: bool = True, **config: object) -> UniformSource:
    source = UniformSource(UniformSourceConfig(**{"width": 80, "height": 48, **config}), str(path), "film")
    source.open(Context(outputs=None if previews else frozenset({"frames"})))
    return source


def read_all(source: UniformSource, cursor: int = 0) -> list[SourceOutputs]:
    outs: list[SourceOutputs] = []
    while not outs or outs[-1].end is None:
        cursor, out = source.read(cursor)
        outs.append(out)
    return outs


def frames_of(outs: list[SourceOutputs], port: str = "frames") -> list[Frame]:
    return [p for out in outs for p in out.packets.get(port, []) if isinstance(p, Frame)]


def test_it_is_registered() -> None:
    assert source_class("uniform") is UniformSource


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_frames_lie_at_equal_distances_over_the_whole_file(tmp_path: Path, chunk: int) -> None:
    path = write_video(tmp_path / "v.mp4", 100)
    outs = read_all(make(path, frames=7, chunk=chunk, preview=24))
    frames = frames_of(outs)
    pixels, times = sample_uniform(path, 7, (48, 80))
    assert [frame_number(f.pixels) for f in frames] == [0, 16, 33, 49, 66, 82, 99]
    assert [f.t for f in frames] == times.tolist()
    assert np.array_equal(np.stack([f.pixels for f in frames]), pixels)
    assert [f.pixels.shape for f in frames_of(outs, "previews")] == [(24, 40, 3)] * 7
    end = outs[-1].end
    assert end is not None and (end.reason, end.t, outs[-1].watermark) == ("complete", 4.0, 4.0)


def test_a_short_video_repeats_frames_at_increasing_times(tmp_path: Path) -> None:
    frames = frames_of(read_all(make(write_video(tmp_path / "v.mp4", 4), frames=10)))
    assert [frame_number(f.pixels) for f in frames] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    times = [f.t for f in frames]
    assert all(a < b for a, b in zip(times, times[1:], strict=False))
    assert times[-1] == pytest.approx(3 / 25, abs=1e-4)


def test_another_process_can_go_on_from_the_cursor(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 100)
    cursor, out = make(path, frames=9, chunk=4).read(0)
    rest = frames_of([out, *read_all(make(path, frames=9, chunk=4), cursor)])
    assert [f.t for f in rest] == [f.t for f in frames_of(read_all(make(path, frames=9)))]


def test_nobody_makes_previews_that_nobody_reads(tmp_path: Path) -> None:
    outs = read_all(make(write_video(tmp_path / "v.mp4", 20), previews=False, frames=3))
    assert not frames_of(outs, "previews") and len(frames_of(outs)) == 3


def test_interrupt(tmp_path: Path) -> None:
    source = make(write_video(tmp_path / "v.mp4", 100), frames=9, chunk=2)
    cursor, _ = source.read(0)
    source.interrupt()
    _, out = source.read(cursor)
    assert out.end is not None and out.end.reason == "interrupted" and not frames_of([out])


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 200, container_options={"movflags": "faststart"})
    end = read_all(make(cut(whole, tmp_path / "v.mp4", 0.6), frames=5))[-1].end
    assert end is not None and end.reason == "truncated" and 2 < end.t < 7
    with pytest.raises(SourceError, match="no such file"):
        make(tmp_path / "none.mp4")
