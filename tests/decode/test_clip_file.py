"""Clips of files: the right frames, whatever the container, and nothing encoded anew."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from onlooker.operators.decode import open_video
from onlooker.operators.decode.clip import ClipError, CutVideo, Entry, cut
from onlooker.operators.decode.clip_file import cut_file
from tests.videos import MATRICES, frame_number, set_display_matrix, write_audio, write_two_streams, write_video


def numbers(clip: CutVideo, folder: Path) -> list[int]:
    path = folder / f"shown{clip.suffix}"
    path.write_bytes(clip.video)
    with open_video(path, rate=None) as video:
        return [frame_number(frame.pixels) for frame in video]


def shown(clip: CutVideo) -> int:
    return frame_number(np.asarray(Image.open(io.BytesIO(clip.picture))))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mov"])
@pytest.mark.parametrize("span", [(0.0, 1.0), (4.0, 6.0), (7.3, 7.5), (7.9, 20.0)])
def test_the_clip_shows_what_the_reader_of_the_file_calls_that_time(
    name: str, span: tuple[float, float], tmp_path: Path
) -> None:
    path = write_video(tmp_path / name, 200, gop=20)
    with open_video(path, rate=None) as video:
        wanted = {frame_number(f.pixels) for f in video if span[0] <= f.t < span[1]}
    clip = cut_file(path, *span)
    found = numbers(clip, tmp_path)
    assert wanted <= set(found) and found[0] % 20 == 0 and min(wanted) - found[0] < 20, "from the key frame before"
    assert found[: max(wanted) + 1 - found[0]] == list(range(found[0], max(wanted) + 1))
    assert found[-1] - max(wanted) <= 3, "reordered frames may stand over"
    assert shown(clip) in wanted
    assert clip.t_start == pytest.approx(found[0] / 25, abs=0.1)


def test_a_file_that_was_cut_has_its_times_where_its_container_says(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.mkv", 100, pts=list(range(500, 600)), gop=10)
    assert set(range(50, 75)) <= set(numbers(cut_file(path, 22.0, 23.0), tmp_path))
    with pytest.raises(ClipError, match="shows nothing at this time"):
        cut_file(path, 2.0, 3.0)


def test_a_clip_is_bounded_in_bytes_and_of_the_stream_that_was_watched(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 200, gop=20)
    assert len(numbers(cut_file(path, 0.0, 8.0, max_bytes=4000), tmp_path)) < 150
    both = write_two_streams(tmp_path / "two.mp4")
    assert numbers(cut_file(both, 0.0, 1.0, video_stream=0), tmp_path)[0] == 0
    assert numbers(cut_file(both, 0.0, 1.0), tmp_path)[0] == 500


def test_the_picture_stands_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10)
    set_display_matrix(path, MATRICES["quarter clockwise"])
    clip = cut_file(path, 0.0, 1.0)
    assert Image.open(io.BytesIO(clip.picture)).size == (48, 80)
    (tmp_path / "clip.mp4").write_bytes(clip.video)
    with open_video(tmp_path / "clip.mp4") as video:
        assert (video.info.width, video.info.height) == (48, 80), "as the clip does"


def test_what_cannot_be_cut_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all")
    for path in (tmp_path / "missing.mp4", tmp_path / "text.mp4", write_audio(tmp_path / "sound.m4a")):
        with pytest.raises(ClipError, match=path.name) as error:
            cut_file(path, 0.0, 1.0)
        assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)


def test_times_that_no_file_can_hold_are_refused_in_one_line(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10, codec_options={"bf": "0"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        entries = [
            Entry(bytes(packet), packet.is_keyframe, packet.pts, packet.dts, packet.duration or 0, 0.0, epoch=1)
            for packet in container.demux(stream)
            if packet.size
        ]
        assert stream.time_base is not None and cut(stream, stream.time_base, entries, 1, 0.0, 1.0).video
        entries[0].dts, entries[1].pts = -(1 << 62), (1 << 63) - 1
        with pytest.raises(ClipError, match="goes into no clip"):
            cut(stream, stream.time_base, entries, 1, 0.0, 1.0)


def test_nothing_of_the_file_stays_open(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 50, gop=10)
    clip = cut_file(path, 0.5, 1.0)
    with av.open(io.BytesIO(clip.video)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    fds = [entry.resolve() for entry in Path("/dev/fd").iterdir()]
    assert path.resolve() not in fds
