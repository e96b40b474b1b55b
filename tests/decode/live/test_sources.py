"""Sources without RTSP: what comes over HTTP, UDP and TCP, damage in it, and changes on the way."""

from __future__ import annotations

import random
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.options import LiveOptions
from onlooker.operators.decode.live.reader import LiveReader
from onlooker.operators.errors import OnlookerError
from tests.videos import frame_number, write_video

from .sources import Log, free_port, http_server, send_status, tcp_server, udp_sender

ALL = LiveOptions(
    fps=None, size=None, policy="drop_oldest", queue=200, backoff_first=0.1, backoff_cap=0.3, refused_wait=0.3,
    stall_after=10, reconnect_after=20,
)  # fmt: skip


def read_to_end(reader: LiveReader) -> Log:
    log = Log(reader)
    log.until(lambda: reader.ended)
    return log


def test_a_file_plays_in_real_time_and_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30, rate=25)
    began = time.monotonic()
    with LiveReader(parse_source(str(path)), ALL) as reader:
        log = read_to_end(reader)
        assert [frame_number(frame.pixels) for frame in log.frames()] == list(range(30))
        assert [frame.t for frame in log.frames()] == pytest.approx([i / 25 for i in range(30)], abs=1e-5)
        assert time.monotonic() - began > 29 / 25
        assert [state.state for state in log.states()] == ["connecting", "live", "ended"]
        assert log.states()[-1].reason == "complete"
        assert reader.counters()["frames_in"] == reader.counters()["frames_delivered"] == 30
        assert reader.read(0) == []


def test_a_pause_in_a_file_is_no_new_epoch(tmp_path: Path) -> None:
    path = write_video(tmp_path / "screen.mp4", 5, rate=25, pts=[0, 1, 2, 131, 132])  # five seconds of the same
    with LiveReader(parse_source(str(path)), ALL) as reader:
        log = read_to_end(reader)
        assert [frame.t for frame in log.frames()] == pytest.approx([0, 0.04, 0.08, 5.24, 5.28], abs=1e-5)
        assert len(log.epochs()) == 1


def test_sampling_and_previews(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 26, rate=25)
    options = LiveOptions(fps=5, size=(32, 64), preview=24, policy="block")
    with LiveReader(parse_source(str(path)), options) as reader:
        log = read_to_end(reader)
        assert [frame_number(frame.pixels) for frame in log.frames()] == [0, 5, 10, 15, 20, 25]
        assert {(frame.pixels.shape, frame.preview.shape) for frame in log.frames()} == {((32, 64, 3), (24, 40, 3))}
        assert reader.counters()["frames_dropped_unsampled"] == 20


def test_the_sampling_rate_can_change_on_the_way() -> None:
    with LiveReader(parse_source("lavfi:testsrc2=size=64x48:rate=25"), ALL) as reader:
        log = Log(reader)
        log.more_frames(30)
        reader.fps = 2.0
        log.more_frames(1)  # asked for before
        log.until(lambda: not reader.counters()["frames_waiting"])
        log.more_frames(4)
        steps = [b.t - a.t for a, b in zip(log.frames()[-4:], log.frames()[-3:], strict=False)]
        assert all(step >= 0.4 for step in steps), steps


def test_a_slow_test_pattern_is_not_taken_for_a_stalled_camera() -> None:
    options = LiveOptions(fps=None, stall_after=0.6, reconnect_after=1.2)
    with LiveReader(parse_source("lavfi:testsrc2=size=64x48:rate=1/2"), options) as reader:
        log = Log(reader)
        log.more_frames(2)
        assert [state.state for state in log.states()] == ["connecting", "live"]


def test_blocking_is_refused_for_live_sources() -> None:
    with pytest.raises(OnlookerError, match="cannot wait"):
        LiveReader(parse_source("rtsp://cam/x"), LiveOptions(policy="block"))


def jpegs(tmp_path: Path, number: int, height: int = 48, width: int = 80) -> list[bytes]:
    import io

    from PIL import Image

    from tests.videos import numbered_frame

    found = []
    for i in range(number):
        buffer = io.BytesIO()
        Image.fromarray(numbered_frame(i, height, width)).save(buffer, "JPEG")
        found.append(buffer.getvalue())
    return found


def test_motion_jpeg_with_digits_of_a_password(tmp_path: Path) -> None:
    pictures = jpegs(tmp_path, 400)

    def answer(request: BaseHTTPRequestHandler) -> None:
        if not request.headers.get("Authorization"):
            return send_status(401, {"WWW-Authenticate": 'Basic realm="camera"'})(request)
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for picture in pictures:
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            request.wfile.write(head.encode() + picture + b"\r\n")
            time.sleep(0.04)

    with http_server(answer) as url:
        with LiveReader(parse_source(url + "/video.mjpg", user="a", password="b"), ALL) as reader:
            log = Log(reader)
            log.more_frames(20)
            numbers = [frame_number(frame.pixels) for frame in log.frames()]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert log.epochs()[0].codec == "mjpeg"
        with LiveReader(parse_source(url + "/video.mjpg"), ALL) as reader:
            assert Log(reader).wait_for_state("reconnecting").reason == "wrong_password"


def serve_file(folder: Path):
    def answer(request: BaseHTTPRequestHandler) -> None:
        path = folder / request.path.lstrip("/")
        if not path.is_file():
            return send_status(404)(request)
        data = path.read_bytes()
        request.send_response(200)
        kind = {".m3u8": "application/vnd.apple.mpegurl", ".mp4": "video/mp4"}.get(path.suffix, "video/mp2t")
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return answer


def test_mp4_over_http_ends_and_an_unknown_codec_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20, container_options={"movflags": "faststart"})
    (tmp_path / "odd.mp4").write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with http_server(serve_file(tmp_path)) as url:
        with LiveReader(parse_source(url + "/a.mp4"), ALL) as reader:
            assert len(read_to_end(reader).frames()) == 20
        with LiveReader(parse_source(url + "/odd.mp4"), ALL) as reader:
            assert Log(reader).wait_for_state("reconnecting").reason == "unsupported_codec"
        with LiveReader(parse_source(url + "/none.mp4"), ALL) as reader:
            assert Log(reader).wait_for_state("reconnecting").reason == "not_found"


def test_hls_is_paced(tmp_path: Path) -> None:
    write_video(tmp_path / "live.m3u8", 60, gop=10, container_options={"hls_time": "0.4", "hls_list_size": "0"})
    playlist = (tmp_path / "live.m3u8").read_text().replace("#EXT-X-ENDLIST\n", "")
    (tmp_path / "live.m3u8").write_text(playlist)
    with http_server(serve_file(tmp_path)) as url, LiveReader(parse_source(url + "/live.m3u8"), ALL) as reader:
        log = Log(reader)
        log.more_frames(20)
        first, last = log.frames()[0], log.frames()[-1]
        assert last.arrival - first.arrival > 0.9 * (last.t - first.t), "segments come at once, frames do not"
        assert first.wall.error >= 30, "how late segments are cannot be known"


def transport_stream(tmp_path: Path, name: str, frames: int, **options: object) -> bytes:
    return write_video(tmp_path / f"{name}.ts", frames, **options).read_bytes()  # type: ignore[arg-type]


def test_a_stream_that_changes_size_and_jumps_back_goes_on_in_a_new_epoch(tmp_path: Path) -> None:
    from tests.videos import numbered_frame

    small = transport_stream(tmp_path, "small", 40)
    large = transport_stream(tmp_path, "large", (numbered_frame(i, 96, 160) for i in range(40)))  # type: ignore[arg-type]

    def serve(connection: socket.socket) -> None:
        connection.sendall(small + large)
        connection.recv(1)

    with tcp_server(serve) as port, LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), ALL) as reader:
        log = Log(reader)
        log.until(lambda: [frame for frame in log.frames() if frame.source_size == (160, 96)])
        log.more_frames(10)
        assert [epoch.size for epoch in log.epochs()][0] == (80, 48)
        assert log.epochs()[-1].size == (160, 96)
        assert log.epochs()[-1].why in ("format", "pts_back")
        assert reader.counters()["connections"] == 1


def test_garbage_instead_of_video_and_then_video(tmp_path: Path) -> None:
    good, draw = transport_stream(tmp_path, "good", 60), random.Random(3)
    connections = []

    def serve(connection: socket.socket) -> None:
        connections.append(1)
        connection.sendall(draw.randbytes(400_000) if len(connections) < 3 else good)
        if len(connections) >= 3:
            connection.recv(1)

    with tcp_server(serve) as port, LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), ALL) as reader:
        log = Log(reader)
        log.more_frames(20)
        reasons = [state.reason for state in log.states() if state.state == "reconnecting"]
        assert len(reasons) >= 2 and set(reasons) <= {"not_video", "closed", "no_video", "crashed"}


def test_garbage_in_the_middle_of_video(tmp_path: Path) -> None:
    good, draw = transport_stream(tmp_path, "good", 400, gop=5), random.Random(4)
    third = len(good) // 3 // 188 * 188

    def serve(connection: socket.socket) -> None:
        connection.sendall(good[:third] + draw.randbytes(50_001) + good[third:])
        connection.recv(1)

    with tcp_server(serve) as port, LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), ALL) as reader:
        log = Log(reader)
        log.until(lambda: log.frames() and frame_number(log.frames()[-1].pixels) > 300)
        assert reader.seen["corrupt"] > 0, "the damage was met"
        assert reader.counters()["connections"] == 1


def test_udp_packet_loss(tmp_path: Path) -> None:
    stream = tmp_path / "a.ts"
    constant = {"nal-hrd": "cbr", "b": "400k", "maxrate": "400k", "minrate": "400k", "bufsize": "100k"}
    write_video(stream, 150, rate=25, gop=10, codec_options=constant)
    port = free_port(socket.SOCK_DGRAM)
    with LiveReader(parse_source(f"udp://127.0.0.1:{port}"), ALL) as reader:
        log = Log(reader)
        while reader.seen == {}:
            log.step()
        with udp_sender(stream, 4, port, 0.05) as sender:
            log.more_frames(60)
            while sender.poll() is None:
                log.step(0.2)
            assert sender.stdout is not None and int(sender.stdout.read()) > 5, "datagrams were lost"
        assert reader.seen["corrupt"] > 0, "and the loss was seen"
        assert len(log.epochs()) == 1, "lost frames are no new line of time"
        assert reader.counters()["connections"] == 1
        assert len(log.frames()) > 70
