"""Files that are missing, wrong or broken: one clear line where nothing can be read, else all there is, and the truth
about it.
"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onlooker.operators.decode import SourceError, open_video
from onlooker.operators.decode.integrity import is_cut_short
from tests.videos import cut, frame_number, remux, write_audio, write_video


def refusal(path: str | Path, **options: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_video(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, "says what is wrong and what to do"
    return caught.value


def test_a_missing_file(tmp_path: Path) -> None:
    error = refusal(tmp_path / "holiday.mp4")
    assert error.code == "missing"
    assert "holiday.mp4: no such file" in str(error)
    assert str(tmp_path) not in str(error)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    assert refusal(tmp_path / "v.mp4").code == "empty"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "not_a_file"


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    assert refusal(tmp_path / "v.mp4").code == "not_a_file"


@pytest.mark.parametrize("content", [b"Dear diary\n" * 50, bytes(range(256)) * 40, b"\0" * 5000])
@pytest.mark.parametrize("suffix", ["mp4", "txt", "ts", "jpg", "mkv"])
def test_something_else(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"v.{suffix}"
    path.write_bytes(content)
    assert refusal(path).code in {"not_a_video", "no_frames", "no_video_stream"}


@pytest.mark.parametrize("cover", [False, True])
def test_sound_only_even_with_a_cover_picture(tmp_path: Path, cover: bool) -> None:
    error = refusal(write_audio(tmp_path / "song.mp4", cover=cover))
    assert error.code == "no_video_stream"
    assert "sound but no video" in str(error)


def test_a_video_stream_without_a_frame(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", 5)
    error = refusal(remux(whole, tmp_path / "v.mkv", lambda number, packet: False))
    assert error.code == "no_frames"


@pytest.mark.parametrize("url", ["rtsp://user:secret@camera/1", "https://user:secret@host/v.mp4?token=secret"])
def test_addresses_are_refused_without_their_credentials(url: str) -> None:
    error = refusal(url)
    assert "secret" not in str(error) and "user" not in str(error)


def test_a_mp4_without_its_index_says_so(tmp_path: Path) -> None:
    path = cut(write_video(tmp_path / "whole.mp4"), tmp_path / "v.mp4", 0.6)
    assert "index (moov) is missing" in str(refusal(path))


@pytest.fixture
def ordinary_user(tmp_path: Path) -> Iterator[None]:
    """Root may read everything; step down from it for the test."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = write_video(tmp_path / "v.mp4", 5)
    path.chmod(0)
    request.getfixturevalue("ordinary_user")
    assert refusal(path).code == "permission"


def test_the_error_crosses_a_process_border(tmp_path: Path) -> None:
    error = refusal(tmp_path / "v.mp4")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, str(copy)) == (error.code, str(error))


FASTSTART = {"movflags": "faststart"}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("share", [0.51, 0.77, 0.9])
def test_truncated_files_deliver_what_they_hold(tmp_path: Path, suffix: str, share: float) -> None:
    whole = write_video(tmp_path / f"whole.{suffix}", 200, container_options=FASTSTART if suffix == "mp4" else None)
    path = cut(whole, tmp_path / f"v.{suffix}", share)
    with open_video(path, rate=None) as reader:
        numbers = [frame_number(f.pixels) for f in reader]
    assert reader.end is not None and reader.end.reason == "truncated"
    assert 200 >= len(numbers) > 0.3 * share * 200
    assert numbers[:-3] == list(range(len(numbers) - 3)), "only the very end may be damaged"
    assert reader.end.t_end == pytest.approx(len(numbers) / 25, abs=0.13)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "mov", "h264"])
def test_whole_files_are_complete(tmp_path: Path, suffix: str) -> None:
    """The twin of the test above."""
    with open_video(write_video(tmp_path / f"v.{suffix}", 60), rate=None) as reader:
        assert len(list(reader)) == 60
    assert reader.end is not None and reader.end.reason == "complete"
    assert reader.counts.corrupt_packets == 0


def test_fragmented_mp4_may_end_anywhere(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 200, container_options={"movflags": "frag_keyframe+empty_moov"})
    with open_video(cut(whole, tmp_path / "v.mp4", 0.6), rate=None) as reader:
        assert 60 < len(list(reader)) < 140
    assert reader.end is not None and reader.end.reason == "truncated"
    with open_video(whole, rate=None) as reader:
        assert len(list(reader)) == 200
    assert reader.end is not None and reader.end.reason == "complete"


def test_a_trailer_after_the_last_box_is_no_truncation(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 30)
    path.write_bytes(path.read_bytes() + b"\0" * 1000)
    assert not is_cut_short(path, "mov,mp4,m4a,3gp,3g2,mj2")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("seed", range(4))
def test_damage_in_the_middle_is_stepped_over(tmp_path: Path, suffix: str, seed: int) -> None:
    """Some hundred bytes overwritten: whatever libav makes of it, time only goes forward and the rest is delivered."""
    path = write_video(tmp_path / f"v.{suffix}", 200, container_options=FASTSTART if suffix == "mp4" else None)
    data = bytearray(path.read_bytes())
    noise = random.Random(seed)
    start = noise.randrange(int(len(data) * 0.5), int(len(data) * 0.6))
    data[start : start + 300] = noise.randbytes(300)
    path.write_bytes(data)
    with open_video(path, rate=None) as reader:
        frames = list(reader)
    times = [f.t for f in frames]
    assert times == sorted(set(times))
    assert [frame_number(f.pixels) for f in frames[:40]] == list(range(40))
    assert reader.end is not None
    assert reader.end.t_end == pytest.approx(8, abs=0.3) or reader.end.reason == "truncated"
    assert reader.end.reason == "truncated" or reader.counts.corrupt_packets > 0 or suffix == "ts"


def test_refused_packets_are_counted(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", 60, codec="mjpeg")

    def spoil(number: int, packet: Any) -> None:
        if number in (20, 21):
            packet.update(b"\xff" * packet.size) if hasattr(packet, "update") else None

    path = remux(whole, tmp_path / "v.mkv", spoil)
    with open_video(path, rate=None) as reader:
        times = [f.t for f in reader]
    assert len(times) == 58
    assert reader.counts.corrupt_packets == 2
    assert reader.end is not None and reader.end.t_end == pytest.approx(2.4)
