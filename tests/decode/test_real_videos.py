"""Real recordings: run with `-m data` and ONLOOKER_DATA set to the data folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from onlooker.operators.decode import open_video, sample_uniform

pytestmark = pytest.mark.data

VIDEOS = ["nasa_13013.mp4", "sam2_01_dog.mp4", "sam2_04_coffee.mp4", "sam2_05_default_juggle.mp4"]


@pytest.fixture(params=VIDEOS)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(os.environ["ONLOOKER_DATA"]) / "videos" / request.param


def test_sampled_at_the_right_times_and_resumable(path: Path) -> None:
    with open_video(path, size=(112, 112)) as reader:
        frames, cursors = [], []
        for frame in reader:
            frames.append(frame)
            cursors.append(reader.cursor)
    assert reader.end is not None and reader.end.reason == "complete"
    assert reader.info.duration == pytest.approx(reader.end.t_end, abs=0.05)
    assert reader.info.average_rate is not None
    for k, frame in enumerate(frames):
        assert 0 <= frame.t - k / 2 < 1 / reader.info.average_rate + 1e-6
    with open_video(path, size=(112, 112), cursor=cursors[9]) as resumed:
        rest = list(resumed)
    assert [f.t for f in rest] == [f.t for f in frames[10:]]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(rest, frames[10:], strict=True))
    assert (resumed.counts, resumed.end) == (reader.counts, reader.end)


def test_random_access_agrees_with_reading_in_order(path: Path) -> None:
    pixels, times = sample_uniform(path, 12, (112, 112))
    others, other_times = sample_uniform(path, 12, (112, 112), backend="pyav")
    assert times.tolist() == other_times.tolist()
    assert np.abs(pixels.astype(int) - others).mean() < 5


def test_the_best_of_several_streams() -> None:
    path = Path(os.environ["ONLOOKER_DATA"]) / "videos" / "nasa_13013.mp4"
    with open_video(path) as best, open_video(path, video_stream=0) as first:
        assert (best.info.width, best.info.stream_index) == (480, 3)
        assert (first.info.width, first.info.stream_index) == (320, 0)
