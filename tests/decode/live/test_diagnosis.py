"""`diagnose`: what a camera's owner is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.diagnosis import diagnose
from onlooker.operators.decode.live.options import LiveOptions
from tests.videos import write_audio, write_video

from .sources import Camera, free_port, h264, held, http_server, needs_gstreamer, send_status, silent, tcp_server


@needs_gstreamer
def test_a_camera_is_measured() -> None:
    with Camera(h264(160, 120, 25)) as camera:
        report = diagnose(parse_source(camera.url), seconds=3)
    assert report.problem is None
    assert (report.codec, report.size, report.format) == ("h264", (160, 120), "rtsp")
    assert report.frame_rate == pytest.approx(25, rel=0.05)
    assert report.key_interval == pytest.approx(1.0, abs=0.05)
    assert report.bit_rate is not None and 1e4 < report.bit_rate < 1e7
    assert report.sender_reports and report.clock_offset is not None and -5 < report.clock_offset < 0.05


def test_a_source_without_reports_says_so(tmp_path: Path) -> None:
    report = diagnose(parse_source("lavfi:testsrc2=size=64x48:rate=20"), seconds=1)
    assert (report.sender_reports, report.clock_offset) == (False, None)
    assert report.frame_rate == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(401, "wrong_password", "password"), (403, "forbidden", "forbids"), (404, "not_found", "path"),
     (503, "server_error", "viewers")],
)  # fmt: skip
def test_refusals(status: int, kind: str, words: str) -> None:
    with http_server(send_status(status, {"WWW-Authenticate": 'Basic realm="x"'})) as url:
        report = diagnose(parse_source(url + "/s3cr3tS3cr3tS3cr3t9/x?token=t0k3n", user="me", password="s3cr3t"))
    assert report.problem is not None and report.problem.kind == kind
    assert words in report.problem.message
    assert "s3cr3t" not in repr(report) and "t0k3n" not in repr(report)


def test_what_cannot_be_reached_or_is_no_video(tmp_path: Path) -> None:
    before = held()
    quick = LiveOptions(connect_timeout=1.0)
    page = tmp_path / "page.html"
    page.write_text("<html><body>Welcome to your camera!</body></html>" * 200)

    def web_page(request) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.end_headers()
        request.wfile.write(page.read_bytes())

    def kind_of(text: str) -> str | None:
        report = diagnose(parse_source(text), options=quick)
        return report.problem.kind if report.problem else None

    with tcp_server(silent) as port, http_server(web_page) as url, ThreadPoolExecutor(3) as several:
        expected = {
            f"rtsp://127.0.0.1:{port}/x": "timeout",
            f"http://127.0.0.1:{port}/x": "timeout",
            f"rtsp://127.0.0.1:{free_port()}/x": "port_refused",
            "rtsp://no-such-host.invalid/x": "name_not_found",
            url + "/": "not_video",
            "webcam:97": "device_missing",
            "lavfi:no_such_filter": "bad_pattern",
            str(write_audio(tmp_path / "sound.mp4")): "no_video",
            str(page): "not_video",
        }
        assert dict(zip(expected, several.map(kind_of, expected), strict=True)) == expected
    assert held() == before


def test_a_video_that_breaks_off_is_reported_with_what_it_had(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 60)
    data = path.read_bytes()
    with tcp_server(lambda connection: connection.sendall(data)) as port:
        report = diagnose(parse_source(f"tcp://127.0.0.1:{port}"), seconds=40)
    assert report.problem is not None and report.problem.kind == "closed"
    assert report.codec == "h264" and report.frames == 60
