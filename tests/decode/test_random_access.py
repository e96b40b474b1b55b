"""Random access: the same frames at the same times whichever library brings the pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.decode import SourceError, VideoIndex, open_video, sample_uniform
from onlooker.operators.decode.random_access import uniform_indices
from tests.videos import MATRICES, cut, frame_number, set_display_matrix, write_two_streams, write_video


def has_decord() -> bool:
    try:
        import decord  # noqa: F401
    except ImportError:
        return False
    return True


needs_decord = pytest.mark.skipif(not has_decord(), reason="decord has no wheel for this platform")

FILES = {
    "constant": lambda p: write_video(p / "v.mp4", 60),
    "matroska": lambda p: write_video(p / "v.mkv", 60),
    "late start": lambda p: write_video(p / "v.mp4", 60, pts=range(75, 135)),
    "variable": lambda p: write_video(
        p / "v.mkv", 60, pts=[i * 40 + (i % 7) * 5 for i in range(60)], time_base=Fraction(1, 1000)
    ),
    "transport": lambda p: write_video(p / "v.ts", 60),
    "no times": lambda p: write_video(p / "v.h264", 60),
    "avi": lambda p: write_video(p / "v.avi", 60),
    "one frame": lambda p: write_video(p / "v.mp4", 1),
    "two streams": lambda p: write_two_streams(p / "v.mkv"),
    "truncated": lambda p: cut(
        write_video(p / "whole.mp4", 60, container_options={"movflags": "faststart"}), p / "v.mp4", 0.7
    ),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_frames_and_times_are_those_of_the_sequential_reader(tmp_path: Path, kind: str, backend: str) -> None:
    path = FILES[kind](tmp_path)
    with open_video(path, rate=None, size=(24, 40)) as reader:
        frames = list(reader)
    index = VideoIndex(path, backend=backend)  # type: ignore[arg-type]
    assert index.times.tolist() == [f.t for f in frames]
    order = [len(frames) - 1, 0, len(frames) // 2, 0]
    pixels = index.frames(order, (24, 40))
    assert pixels.shape == (4, 24, 40, 3) and pixels.dtype == np.uint8
    for got, number in zip(pixels, order, strict=True):
        assert np.abs(got.astype(int) - frames[number].pixels).mean() < 4


@needs_decord
@pytest.mark.parametrize("kind", ["constant", "matroska", "late start", "variable"])
def test_both_libraries_give_the_same(tmp_path: Path, kind: str) -> None:
    path = FILES[kind](tmp_path)
    pixels, times = sample_uniform(path, 9, (24, 40), backend="decord")
    others, other_times = sample_uniform(path, 9, (24, 40), backend="pyav")
    assert times.tolist() == other_times.tolist()
    assert [frame_number(p) for p in pixels] == [frame_number(p) for p in others]
    assert np.abs(pixels.astype(int) - others).mean() < 4


@needs_decord
@pytest.mark.parametrize("kind", ["transport", "no times", "avi", "two streams", "truncated"])
def test_decord_is_not_trusted_where_it_cannot_be_checked(tmp_path: Path, kind: str) -> None:
    path = FILES[kind](tmp_path)
    assert VideoIndex(path).backend == "pyav"
    with pytest.raises(ValueError, match="decord"):
        VideoIndex(path, backend="decord")


@needs_decord
def test_turned_pictures_are_turned_by_our_own_rule(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 20)
    assert VideoIndex(path).backend == "decord"
    set_display_matrix(path, MATRICES["half"])
    index = VideoIndex(path)
    assert index.backend == "pyav"
    assert frame_number(index.frames([7], (48, 80))[0][::-1, ::-1]) == 7


@given(st.integers(1, 500), st.integers(1, 100))
def test_uniform_indices_span_the_video(frames: int, samples: int) -> None:
    numbers = uniform_indices(frames, samples)
    assert len(numbers) == samples
    assert numbers[0] == 0 and numbers[-1] == (frames - 1 if samples > 1 else 0)
    assert np.all(np.diff(numbers) >= 0)
    assert numbers.tolist() == [int(v) for v in np.linspace(0, frames - 1, samples)]


def test_a_short_video_repeats_frames(tmp_path: Path) -> None:
    pixels, times = sample_uniform(write_video(tmp_path / "v.mp4", 3), 5, (48, 80))
    assert [frame_number(p) for p in pixels] == [0, 0, 1, 1, 2]
    assert times.tolist() == [0.0, 0.0, 0.04, 0.04, 0.08]


def test_numbers_outside_are_refused(tmp_path: Path) -> None:
    index = VideoIndex(write_video(tmp_path / "v.mp4", 10))
    with pytest.raises(IndexError, match=r"0 \.\.\. 9"):
        index.frames([3, 10], (24, 40))
    assert index.frames([], (24, 40)).shape == (0, 24, 40, 3)
    with pytest.raises(ValueError, match="at least one frame"):
        uniform_indices(0, 4)


def test_bad_files_are_the_same_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        VideoIndex(tmp_path / "v.mp4")
