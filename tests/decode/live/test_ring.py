"""Clips: cut at key frames, bit for bit the camera's packets, bounded in seconds and bytes."""

from __future__ import annotations

import io
import socket
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from onlooker.operators.decode import open_video
from onlooker.operators.decode.clip import ClipError, CutVideo
from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.items import ClipCut
from onlooker.operators.decode.live.options import LiveOptions
from onlooker.operators.decode.live.reader import LiveReader
from onlooker.operators.decode.live.ring import PacketRing
from onlooker.pipeline.simulate import SimulatedCamera
from tests.videos import frame_number, write_video

from .sources import Camera, Log, gone, h264, held, needs_gstreamer, tcp_server, wait_until

OPTIONS = LiveOptions(
    fps=None,
    size=None,
    policy="drop_oldest",
    queue=500,
    record=100,
    stall_after=20,
    reconnect_after=40,
    backoff_first=0.1,
    backoff_cap=0.3,
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


def numbers(clip: CutVideo, folder: Path) -> list[int]:
    """Which frames a clip shows, from the first one on."""
    path = folder / f"shown{clip.suffix}"
    path.write_bytes(clip.video)
    with open_video(path, rate=None) as video:
        return [frame_number(frame.pixels) for frame in video]


def shown(picture: bytes) -> int:
    """Which frame a picture shows."""
    return frame_number(np.asarray(Image.open(io.BytesIO(picture))))


def test_a_clip_begins_at_a_key_frame_and_covers_what_was_asked_for(tmp_path: Path) -> None:
    ring = fill(write_video(tmp_path / "a.ts", 100, gop=10), 100, 1 << 30)
    clip = ring.cut(1, 1.0, 2.0)
    found = numbers(clip, tmp_path)
    assert clip.suffix == ".mp4"
    assert found == list(range(20, found[-1] + 1)) and 49 <= found[-1] <= 52, "reordered frames may stand over"
    assert clip.t_start == pytest.approx(0.8)
    assert 25 <= shown(clip.picture) < 50
    assert 80 <= shown(ring.cut(1, 3.2, 3.5).picture) < 88, "and not just any picture"


def test_a_codec_that_mp4_does_not_take_goes_into_matroska(tmp_path: Path) -> None:
    clip = fill(write_video(tmp_path / "a.webm", 30, codec="libvpx"), 100, 1 << 30).cut(1, 0.0, 9.0)
    assert clip.suffix == ".mkv" and numbers(clip, tmp_path) == list(range(30))


def test_nothing_is_encoded_anew(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50, gop=10)
    (tmp_path / "clip.mp4").write_bytes(fill(source, 100, 1 << 30).cut(1, 0.0, 10.0).video)

    def payload(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    assert payload(tmp_path / "clip.mp4") == payload(source)


def test_the_ring_is_bounded_in_seconds_and_in_bytes(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.ts", 250, gop=10)
    whole = fill(source, 1000, 1 << 30)
    short = fill(source, 2.0, 1 << 30)
    small = fill(source, 1000, whole.bytes // 5)
    tiny = fill(source, 1000, 10)
    assert numbers(whole.cut(1, 0, 99), tmp_path) == list(range(250))
    for ring, least, most in ((short, 50, 60), (small, 20, 50)):
        found = numbers(ring.cut(1, 0, 99), tmp_path)
        assert found[-1] == 249 and least <= len(found) <= most and found[0] % 10 == 0
    assert small.bytes <= whole.bytes // 5
    assert tiny.bytes <= 10
    with pytest.raises(ClipError, match="nothing is kept"):
        tiny.cut(1, 0, 99)


def test_what_is_not_kept_is_refused_in_one_line(tmp_path: Path) -> None:
    ring = fill(write_video(tmp_path / "a.ts", 30, gop=10), 100, 1 << 30)
    for epoch, start in ((1, 50.0), (2, 0.0)):
        with pytest.raises(ClipError, match="nothing is kept of this time") as error:
            ring.cut(epoch, start, 99.0)
        assert "\n" not in str(error.value)


def test_a_clip_goes_on_where_the_clock_of_the_camera_jumped_within_a_group_of_pictures(tmp_path: Path) -> None:
    with av.open(str(write_video(tmp_path / "a.ts", 40, gop=20, codec_options={"bf": "0"}))) as container:
        stream = container.streams.video[0]
        ring = PacketRing(stream, 100, 1 << 30)
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            if number >= 10:  # a second epoch, half a group behind the key frame, an hour back
                packet.pts, packet.dts = packet.pts - 3600 * 90_000, packet.dts - 3600 * 90_000
            entry = ring.add(packet, number / 25)
            assert entry is not None
            ring.mark(entry, 1 + (number >= 10), (number - 10 * (number >= 10)) / 25)
    clip = ring.cut(2, 0.0, 0.5)
    assert numbers(clip, tmp_path)[:20] == list(range(20)), "decoding needs what came before"
    with open_video(tmp_path / "shown.mp4", rate=None) as video:
        assert [f.t for f in video][-1] < 1.2
    assert 10 <= shown(clip.picture) < 23


def cut(log: Log, number: int, *span: float) -> ClipCut:
    """Ask for a clip, and read on until it comes."""
    log.reader.clip(number, int(span[0]), *span[1:])
    answers: list[ClipCut] = []

    def came() -> bool:
        answers[:] = [item for item in log.items if isinstance(item, ClipCut) and item.number == number]
        return bool(answers)

    deadline = time.monotonic() + 60
    while not came():
        assert time.monotonic() < deadline
        log.step(0.5)
    return answers[0]


def test_a_reader_cuts_clips_while_it_reads(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.ts", 200, gop=10).read_bytes()

    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.recv(1)

    with tcp_server(serve) as port, LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), OPTIONS) as reader:
        log = Log(reader)
        log.until(lambda: reader.counters()["frames_in"] >= 190)
        epoch = log.epochs()[0].epoch
        found = cut(log, 7, epoch, 2.0, 4.0)
        assert found.clip is not None and found.clip.t_end < 6
        frames = numbers(found.clip, tmp_path)
        assert frames[0] == 50 and set(range(50, 100)) <= set(frames) and len(frames) < 85
        assert 50 <= shown(found.clip.picture) < 100
        assert "connection is over" in cut(log, 8, epoch + 1, 0.0, 1.0).error
        assert "nothing is kept" in cut(log, 9, epoch, 900.0, 901.0).error
        log.more_frames(5)


def test_what_a_lost_connection_showed_last_can_still_be_had(tmp_path: Path) -> None:
    before = held()
    video = write_video(tmp_path / "a.mp4", 100, gop=10, codec_options={"bf": "0"})
    camera = SimulatedCamera(video)
    with LiveReader(parse_source(camera.url), OPTIONS) as reader:
        log = Log(reader)
        log.more_frames(30)
        first, worker = log.epochs()[0].epoch, reader.worker_pid
        camera.stop()
        log.wait_for_state("reconnecting")
        last = log.frames()[-1].t
        found = cut(log, 1, first, 0.0, last)
        assert found.clip is not None and len(numbers(found.clip, tmp_path)) >= 20
        reader.interrupt()
        log.until(lambda: reader.ended)
        again = cut(log, 2, first, last - 0.5, last)
        assert again.clip is not None, "also after the end"
        assert worker is not None and not gone(worker)
    assert gone(worker)
    wait_until(lambda: held() == before)


def test_the_recording_of_a_lost_connection_is_not_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onlooker.operators.decode.live.retired._KEPT", 1.0)
    video = write_video(tmp_path / "a.mp4", 100, gop=10, codec_options={"bf": "0"})
    with SimulatedCamera(video) as camera, LiveReader(parse_source(camera.url), OPTIONS) as reader:
        log = Log(reader)
        log.more_frames(5)
        first, worker = log.epochs()[0].epoch, reader.worker_pid
        camera.fault("kill")
        log.until(lambda: len(log.epochs()) == 2)
        log.until(lambda: worker is not None and gone(worker))
        assert "is gone" in cut(log, 1, first, 0.0, 1.0).error


def test_a_camera_is_hung_up_on_while_its_recording_is_kept(tmp_path: Path) -> None:
    """Many serve few clients, so that the place must be free for the next connection, even if libav hangs in ours."""
    over = threading.Event()
    data = write_video(tmp_path / "a.ts", 50, gop=10).read_bytes()

    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.recv(1)
        over.set()

    with tcp_server(serve) as port, LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), OPTIONS) as reader:
        log = Log(reader)
        log.until(lambda: reader.counters()["frames_in"] >= 40)
        worker = reader.worker_pid
        reader.interrupt()
        log.until(lambda: reader.ended)
        assert over.wait(60)
        assert worker is not None and not gone(worker), "while its process lives on"


def test_pictures_without_times_keep_the_pace_at_which_they_came(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 100, rate=10, gop=10, codec_options={"bf": "0"})
    with (
        SimulatedCamera(video, protocol="http-mjpeg") as camera,
        LiveReader(parse_source(camera.url), OPTIONS) as reader,
    ):
        log = Log(reader)
        log.more_frames(31)
        frames = log.frames()
        taken = frames[-1].arrival - frames[0].arrival
        assert frames[-1].t == pytest.approx(taken, abs=0.01), "libav alone would say 30 / 25 s"
        found = cut(log, 1, log.epochs()[0].epoch, 0.0, frames[-1].t)
    assert found.clip is not None
    (tmp_path / "shown.mp4").write_bytes(found.clip.video)
    with open_video(tmp_path / "shown.mp4", rate=None) as clip:
        times = [frame.t for frame in clip]
    assert len(times) >= 28 and times[-1] - times[0] == pytest.approx(found.clip.t_end - found.clip.t_start, abs=0.2)


def test_what_is_not_compressed_or_not_kept_is_refused() -> None:
    for record, notices in ((5.0, 1), (0.0, 0)):
        options = LiveOptions(fps=None, record=record)
        with LiveReader(parse_source("lavfi:testsrc2=size=64x48:rate=25"), options) as reader:
            log = Log(reader)
            log.more_frames(3)
            assert len(log.notices()) == notices
            assert "nothing is kept" in cut(log, 1, log.epochs()[0].epoch, 0.0, 1.0).error


@needs_gstreamer
def test_a_clip_of_an_rtsp_camera_whose_first_packet_has_no_time(tmp_path: Path) -> None:
    with Camera(h264()) as camera, LiveReader(parse_source(camera.url), OPTIONS) as reader:
        log = Log(reader)
        log.more_frames(60)
        assert log.frames()[0].pts is None
        found = cut(log, 1, log.epochs()[0].epoch, 0.0, 2.0)
        assert found.clip is not None
        (tmp_path / "clip.mp4").write_bytes(found.clip.video)
        with open_video(tmp_path / "clip.mp4", rate=None) as video:
            frames = list(video)
        assert 40 <= len(frames) <= 85
        assert 2.0 <= frames[-1].t + 0.2 <= 3.4
