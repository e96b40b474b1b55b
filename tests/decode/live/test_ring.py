"""Clips: cut at key frames, bit for bit the camera's packets, bounded in seconds and bytes."""

from __future__ import annotations

import socket
from pathlib import Path

import av
import pytest

from onlooker.operators.decode import open_video
from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.options import LiveOptions
from onlooker.operators.decode.live.reader import LiveReader
from onlooker.operators.decode.live.ring import ClipError, PacketRing
from tests.videos import frame_number, write_video

from .sources import Camera, Log, h264, needs_gstreamer, tcp_server

OPTIONS = LiveOptions(
    fps=None, size=None, policy="drop_oldest", queue=500, record=100, stall_after=20, reconnect_after=40
)


def fill(path: Path, seconds: float, max_bytes: int) -> PacketRing:
    """A ring that all packets of a file went through; its frames at their own times in epoch 1."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ring = PacketRing(stream, seconds, max_bytes)
        first = None
        for packet in container.demux(stream):
            if packet.size:
                t = float(packet.pts * packet.time_base)
                first = t if first is None else first
                entry = ring.add(packet, t)
                if entry is not None:
                    ring.mark(entry, 1, t - first)
        return ring  # and the source is closed


def numbers(path: Path) -> list[int]:
    with open_video(path, rate=None) as video:
        return [frame_number(frame.pixels) for frame in video]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_clip_begins_at_a_key_frame_and_covers_what_was_asked_for(tmp_path: Path, suffix: str) -> None:
    ring = fill(write_video(tmp_path / "a.ts", 100, gop=10), 100, 1 << 30)
    clip = ring.write(1, 1.0, 2.0, tmp_path / f"clip{suffix}")
    found = numbers(clip.path)
    assert found == list(range(20, found[-1] + 1)) and 49 <= found[-1] <= 52, "reordered frames may stand over"
    assert clip.t_start == pytest.approx(0.8)
    assert clip.bytes == clip.path.stat().st_size
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_nothing_is_encoded_anew(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50, gop=10)
    clip = fill(source, 100, 1 << 30).write(1, 0.0, 10.0, tmp_path / "clip.mp4")

    def payload(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    assert payload(clip.path) == payload(source)


def test_the_ring_is_bounded_in_seconds_and_in_bytes(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.ts", 250, gop=10)
    whole = fill(source, 1000, 1 << 30)
    short = fill(source, 2.0, 1 << 30)
    small = fill(source, 1000, whole.bytes // 5)
    tiny = fill(source, 1000, 10)
    assert numbers(whole.write(1, 0, 99, tmp_path / "w.mkv").path) == list(range(250))
    for ring, least, most in ((short, 50, 60), (small, 20, 50)):
        found = numbers(ring.write(1, 0, 99, tmp_path / "x.mkv").path)
        assert found[-1] == 249 and least <= len(found) <= most and found[0] % 10 == 0
    assert small.bytes <= whole.bytes // 5
    assert tiny.bytes <= 10
    with pytest.raises(ClipError, match="nothing is kept"):
        tiny.write(1, 0, 99, tmp_path / "t.mkv")


def test_refusals_are_one_line_and_leave_no_file(tmp_path: Path) -> None:
    ring = fill(write_video(tmp_path / "a.ts", 30, gop=10), 100, 1 << 30)
    for epoch, start, name, words in (
        (1, 0.0, "clip.avi", "must end in"),
        (1, 50.0, "clip.mp4", "nothing is kept"),
        (2, 0.0, "clip.mp4", "nothing is kept"),
        (1, 0.0, "no/such/folder/clip.mp4", "cannot be written"),
    ):
        with pytest.raises(ClipError, match=words) as error:
            ring.write(epoch, start, 99.0, tmp_path / name)
        assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ts"]


def test_a_reader_cuts_clips_while_it_reads(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.ts", 200, gop=10).read_bytes()

    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.recv(1)

    with tcp_server(serve) as port, LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), OPTIONS) as reader:
        log = Log(reader)
        log.until(lambda: reader.counters()["frames_in"] >= 190)
        epoch = log.epochs()[0].epoch
        reader.read(0)  # a frame may be on its way while the clip is asked for
        with pytest.raises(ClipError, match="not written in time"):
            reader.clip(epoch, 6.0, 7.0, tmp_path / "late.mp4", timeout=0)
        clip = reader.clip(epoch, 2.0, 4.0, tmp_path / "clip.mp4")  # gets its own answer, not the late one
        assert clip.t_end < 5
        found = numbers(clip.path)
        assert found[0] == 50 and set(range(50, 100)) <= set(found) and len(found) < 60
        with pytest.raises(ClipError, match="connection is over"):
            reader.clip(epoch + 1, 0, 1, tmp_path / "other.mp4")
        log.more_frames(5)


def test_what_is_not_compressed_or_not_kept_is_refused(tmp_path: Path) -> None:
    for record, notices in ((5.0, 1), (0.0, 0)):
        options = LiveOptions(fps=None, record=record)
        with LiveReader(parse_source("lavfi:testsrc2=size=64x48:rate=25"), options) as reader:
            log = Log(reader)
            log.more_frames(3)
            assert len(log.notices()) == notices
            with pytest.raises(ClipError, match="nothing is kept"):
                reader.clip(log.epochs()[0].epoch, 0, 1, tmp_path / "clip.mp4")


@needs_gstreamer
def test_a_clip_of_an_rtsp_camera_whose_first_packet_has_no_time(tmp_path: Path) -> None:
    with Camera(h264()) as camera, LiveReader(parse_source(camera.url), OPTIONS) as reader:
        log = Log(reader)
        log.more_frames(60)
        assert log.frames()[0].pts is None
        clip = reader.clip(log.epochs()[0].epoch, 0.0, 2.0, tmp_path / "clip.mp4")
        with open_video(clip.path, rate=None) as video:
            frames = list(video)
        assert 40 <= len(frames) <= 60
        assert frames[-1].t == pytest.approx(2.0, abs=0.2)
