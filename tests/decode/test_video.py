"""Reading healthy files of every kind: which frames come out, when, and how they look."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onlooker.operators.decode import Cursor, SourceError, VideoReader, open_video
from tests.videos import (
    MATRICES,
    frame_number,
    numbered_frame,
    remux,
    set_display_matrix,
    write_two_streams,
    write_video,
)


def read(path: Path, **options: Any) -> tuple[list[int], list[float], VideoReader]:
    """Numbers and times of the sampled frames, and the finished reader."""
    with open_video(path, **{"size": (48, 80), **options}) as reader:
        frames = list(reader)
    assert [f.index for f in frames] == list(range(len(frames)))
    counts = reader.counts
    assert counts.decoded == counts.sampled + counts.unsampled + counts.non_increasing + counts.before_zero
    return [frame_number(f.pixels) for f in frames], [f.t for f in frames], reader


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts", "avi", "h264"])
def test_constant_rate_with_b_frames_in_every_container(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"v.{suffix}", 60)
    numbers, times, reader = read(path, rate=2)
    assert numbers == [0, 13, 25, 38, 50]
    assert times == pytest.approx([n / 25 for n in numbers], abs=1e-9)
    assert reader.end is not None and reader.end.reason == "complete"
    assert reader.end.t_end == pytest.approx(2.4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "h264"])
def test_without_a_rate_every_frame_comes(tmp_path: Path, suffix: str) -> None:
    numbers, times, _ = read(write_video(tmp_path / f"v.{suffix}", 40), rate=None)
    assert numbers == list(range(40))
    assert times == pytest.approx([n / 25 for n in range(40)], abs=1e-9)


def test_variable_rate_keeps_the_times_and_leaves_slots_empty(tmp_path: Path) -> None:
    stamps = [0, 40, 100, 460, 520, 980, 1010, 3990, 4000, 4700]  # milliseconds; nothing for almost 3 s
    path = write_video(tmp_path / "v.mkv", 10, pts=stamps, time_base=Fraction(1, 1000))
    numbers, times, _ = read(path, rate=2)
    assert numbers == [0, 4, 6, 7, 8, 9]
    assert times == [0.0, 0.52, 1.01, 3.99, 4.0, 4.7]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 250), min_size=1, max_size=25, unique=True).map(sorted), st.sampled_from([0.5, 2, 3, 12.5])
)
def test_sampling_of_real_files_follows_the_rule(tmp_path: Path, stamps: list[int], rate: float) -> None:
    path = write_video(tmp_path / "v.mp4", len(stamps), pts=stamps)
    numbers, times, _ = read(path, rate=rate)
    seconds = [s / 25 for s in stamps]
    wanted: list[int] = []
    for k in range(int(seconds[-1] * rate) + 1):
        first = next(i for i, t in enumerate(seconds) if t >= k / rate)
        if first not in wanted:
            wanted.append(first)
    assert numbers == wanted
    assert times == [seconds[i] for i in wanted]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_late_start_is_kept(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"v.{suffix}", 50, pts=range(60, 110))
    numbers, times, reader = read(path, rate=2)
    assert times == [2.4, 2.52, 3.0, 3.52, 4.0]
    assert numbers == [0, 3, 15, 28, 40]
    assert reader.info.start == 2.4


def test_the_zero_of_a_transport_stream_is_its_first_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.ts", 50, pts=range(60, 110))
    _, times, reader = read(path, rate=2)
    assert times == pytest.approx([0, 0.52, 1.0, 1.52])
    assert reader.info.start == 0.0


def test_an_edit_list_hides_what_lies_before_zero(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 50)

    def earlier(number: int, packet: Any) -> None:
        step = int(Fraction(10, 25) / packet.time_base)
        packet.pts -= step
        packet.dts -= step

    path = remux(whole, tmp_path / "v.mp4", earlier, {"avoid_negative_ts": "disabled"})
    numbers, times, _ = read(path, rate=None)
    assert numbers == list(range(10, 50))
    assert times[0] == 0.0


def test_duplicate_times_are_dropped_and_counted(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mkv", 20, codec_options={"bf": "0"})

    def repeat(number: int, packet: Any) -> None:
        if number in (5, 6, 12):
            packet.pts = packet.dts = 40 * (4 if number < 10 else 11)

    numbers, times, reader = read(remux(plain, tmp_path / "v.mkv", repeat), rate=None)
    assert numbers == [n for n in range(20) if n not in (5, 6, 12)]
    assert np.all(np.diff(times) > 0)
    assert reader.counts.non_increasing == 3


def test_joined_transport_streams_make_one_time(tmp_path: Path) -> None:
    """The second recording starts again at its own zero: nothing is lost, and time goes on."""
    path = tmp_path / "v.ts"
    path.write_bytes(write_video(tmp_path / "a.ts", 50).read_bytes() + write_video(tmp_path / "b.ts", 50).read_bytes())
    numbers, times, reader = read(path, rate=None)
    assert numbers == [*range(50), *range(50)]
    assert times == pytest.approx([n / 25 for n in range(100)])
    assert reader.counts.clock_jumps == 1


def test_overlapping_transport_streams_drop_the_overlap(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.ts", 50)
    # The muxer pulls a late start two frames forward, for the B-frames.
    second = write_video(tmp_path / "b.ts", 50, pts=range(42, 92))
    path = tmp_path / "v.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    numbers, times, reader = read(path, rate=None)
    assert numbers == [*range(50), *range(10, 50)]
    assert np.all(np.diff(times) > 0)
    assert reader.counts.non_increasing == 10


def test_missing_times_are_inferred(tmp_path: Path) -> None:
    _, times, reader = read(write_video(tmp_path / "v.h264", 30), rate=None)
    assert times == pytest.approx([n / 25 for n in range(30)])
    assert reader.counts.inferred_pts == 30


def test_the_stream_is_the_best_or_the_one_asked_for(tmp_path: Path) -> None:
    path = write_two_streams(tmp_path / "v.mkv")
    numbers, _, reader = read(path, rate=None)
    assert (numbers[0], reader.info.stream_index, reader.info.width) == (500, 1, 160)
    numbers, _, reader = read(path, rate=None, video_stream=0)
    assert (numbers[0], reader.info.stream_index, reader.info.width) == (0, 0, 80)
    with pytest.raises(SourceError, match="no video stream 2; choose one of 0 to 1"):
        open_video(path, video_stream=2)


@pytest.mark.parametrize("turn", MATRICES)
def test_frames_come_upright(tmp_path: Path, turn: str) -> None:
    """The picture is stored turned, with the matrix that turns it back: what comes out is the picture."""
    a, b, c, d = MATRICES[turn]
    shown = numbered_frame(717)  # 48 x 80
    # Where a shown pixel was stored is the inverse map; a signed permutation's inverse is its transpose.
    stored = shown.transpose(1, 0, 2) if b else shown
    horizontal, vertical = (b, c) if b else (a, d)
    stored = stored[:, ::horizontal][::vertical]
    path = write_video(tmp_path / "v.mp4", [np.ascontiguousarray(stored)] * 3)
    set_display_matrix(path, MATRICES[turn])
    with open_video(path, rate=None, preview=24) as reader:
        frame = next(reader)
    assert (reader.info.height, reader.info.width) == (48, 80)
    assert frame.pixels.shape == (48, 80, 3) and frame.pixels.flags.c_contiguous
    assert frame_number(frame.pixels) == 717
    assert frame.preview is not None and frame.preview.shape == (24, 40, 3)
    assert frame_number(frame.preview) == 717


def test_size_is_squashed_and_previews_keep_the_shape(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", [numbered_frame(i, 90, 160) for i in range(3)])
    with open_video(path, rate=None, size=(224, 112), preview=60) as reader:
        frame = next(reader)
    assert frame.pixels.shape == (224, 112, 3)
    assert frame.preview is not None and frame.preview.shape == (60, 106, 3)
    with open_video(path, rate=None, preview=500) as reader:
        frame = next(reader)
    assert frame.pixels.shape == (90, 160, 3)
    assert frame.preview is not None and frame.preview.shape == (90, 160, 3), "previews are never enlarged"


def test_previews_have_square_pixels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", [numbered_frame(i, 96, 96) for i in range(3)], aspect=Fraction(4, 3))
    with open_video(path, preview=48) as reader:
        frame = next(reader)
    assert reader.info.pixel_aspect == pytest.approx(4 / 3)
    assert frame.preview is not None and frame.preview.shape == (48, 64, 3)


def test_colours_survive(tmp_path: Path) -> None:
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[:, :40], picture[:, 40:] = (200, 30, 30), (30, 40, 200)
    with open_video(write_video(tmp_path / "v.mp4", [picture] * 2), size=(24, 40)) as reader:
        pixels = next(reader).pixels.astype(int)
    assert np.abs(pixels[:, 4:16] - (200, 30, 30)).max() < 12
    assert np.abs(pixels[:, 24:36] - (30, 40, 200)).max() < 12


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_picture_is_a_video_of_one_frame(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    path = tmp_path / f"p.{suffix}"
    Image.fromarray(numbered_frame(300)).save(path)
    numbers, times, reader = read(path, rate=4)
    assert (numbers, times) == ([300], [0.0])
    assert reader.info.is_image and reader.info.duration == 0.25
    assert reader.end is not None and reader.end.t_end == 0.25 and reader.end.reason == "complete"
    assert read(path, rate=None)[2].end.t_end == 1.0


def test_what_a_file_says_about_itself(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "talk.mp4", 50, rate=Fraction(30000, 1001), metadata={"creation_time": "2024-05-06T07:08:09Z"}
    )
    with open_video(path) as reader:
        info = reader.info
    assert (info.name, info.codec, info.width, info.height) == ("talk.mp4", "h264", 80, 48)
    assert info.average_rate == pytest.approx(29.97, abs=0.01)
    assert info.duration == pytest.approx(50 * 1001 / 30000, abs=1e-3)
    assert info.creation_time == 1714979289.0


@pytest.mark.parametrize("date", ["1904-01-01T00:00:00Z", "yesterday"])
def test_dates_that_are_none_are_not_taken(tmp_path: Path, date: str) -> None:
    with open_video(write_video(tmp_path / "v.mkv", 5, metadata={"creation_time": date})) as reader:
        assert reader.info.creation_time is None


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "h264"])
@pytest.mark.parametrize("rate", [None, 2.0])
def test_going_on_from_any_cursor_gives_the_same_frames(tmp_path: Path, suffix: str, rate: float | None) -> None:
    path = write_video(tmp_path / f"v.{suffix}", 80)
    cursors: list[Cursor] = []
    frames = []
    with open_video(path, rate=rate, size=(48, 80)) as whole:
        for frame in whole:
            frames.append(frame)
            cursors.append(whole.cursor)
    for at in {0, 1, len(frames) // 2, len(frames) - 1}:
        with open_video(path, rate=rate, size=(48, 80), cursor=cursors[at]) as resumed:
            rest = list(resumed)
        assert [(f.index, f.t) for f in rest] == [(f.index, f.t) for f in frames[at + 1 :]]
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(rest, frames[at + 1 :], strict=True))
        assert resumed.counts == whole.counts
        assert resumed.end == whole.end


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_a_cursor_of_another_file_is_refused(tmp_path: Path, suffix: str) -> None:
    long = write_video(tmp_path / f"long.{suffix}", 80)
    with open_video(long, rate=None) as reader:
        for _ in range(40):
            next(reader)
    for other in (
        write_video(tmp_path / f"short.{suffix}", 20),
        write_video(tmp_path / f"faster.{suffix}", 80, rate=31),
    ):
        with pytest.raises(SourceError, match="cannot go on after sample 40"):
            open_video(other, rate=None, cursor=reader.cursor)


@pytest.mark.parametrize("thread_type", ["NONE", "SLICE", "FRAME", "AUTO"])
def test_threads_change_nothing(tmp_path: Path, thread_type: Any) -> None:
    path = write_video(tmp_path / "v.mp4", 60)
    with open_video(path, size=(32, 32), thread_type="NONE", threads=1) as one:
        expected = list(one)
    with open_video(path, size=(32, 32), thread_type=thread_type, threads=3) as several:
        got = list(several)
    assert [f.t for f in got] == [f.t for f in expected]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(got, expected, strict=True))


def test_interrupting_ends_cleanly(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "v.mp4", 60), rate=None) as reader:
        for _ in range(5):
            next(reader)
        reader.interrupt()
        assert list(reader) == []
    assert reader.end is not None
    assert (reader.end.reason, reader.end.t_end) == ("interrupted", 0.2)


def test_decoding_needs_no_torch() -> None:
    code = "import sys, onlooker.operators.decode, onlooker.operators.decode.node; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
