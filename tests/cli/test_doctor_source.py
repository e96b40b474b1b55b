"""`onlooker doctor --source`: what a camera's owner reads, for each thing that can be wrong."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from onlooker.pipeline.cli.main import main
from onlooker.pipeline.simulate import SimulatedCamera
from tests.decode.live.sources import PATIENCE, free_port, held, silent, tcp_server
from tests.videos import write_video

USER, PASSWORD = "admin", "p@ss w/rd"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", 100, gop=25, codec_options={"bf": "0"})


@pytest.fixture(scope="module")
def shared(video: Path) -> Iterator[SimulatedCamera]:
    with SimulatedCamera(video, user=USER, password=PASSWORD) as camera:
        yield camera


@pytest.fixture
def camera(shared: SimulatedCamera) -> Iterator[SimulatedCamera]:
    yield shared
    shared.clear()


class Doctor:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, source: str, code: int, *more: str, seconds: float = 0.8) -> str:
        """Run, check the exit code and that no secret is shown; the findings, and the verdict as their last line."""
        assert main(["doctor", "--source", source, f"--seconds={seconds}", *more]) == code
        out, err = self._capsys.readouterr()
        assert "p%40ss" not in out + err and PASSWORD not in out + err and "hunter2" not in out + err
        assert not err or err.count("\n") == 1
        return out + err


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(capsys)


def line(told: str, what: str) -> str:
    [found] = [one for one in told.splitlines() if f" {what} " in one[:30]]
    return found


def verdict(told: str) -> str:
    return told.rstrip().splitlines()[-1]


def test_a_good_camera_is_measured(camera: SimulatedCamera, doctor: Doctor, tmp_path: Path) -> None:
    secrets = tmp_path / "s"
    secrets.write_text(f"CAM={PASSWORD}")
    secrets.chmod(0o600)
    source = camera.public_url.replace("://", f"://{USER}:${{secret:CAM}}@")
    told = doctor(source, 0, "--secrets", str(secrets), seconds=3.0)
    assert line(told, "source").endswith(f"{camera.public_url}, with user name and password, media by TCP")
    assert "accepted" in line(told, "login") and "Digest" in line(told, "login")
    assert line(told, "offers").endswith("video H264")
    assert "h264 80x48, says 25 a second" in line(told, "video")
    assert ": 25 a second, " in line(told, "pictures") and "bit/s" in line(told, "pictures")
    assert "every 1.0 s" in line(told, "key frames")
    assert "this computer's" in line(told, "camera's clock")
    assert verdict(told) == "all is well."


def test_motion_jpeg_over_http(video: Path, doctor: Doctor) -> None:
    with SimulatedCamera(video, protocol="http-mjpeg", user=USER, password=PASSWORD) as camera:
        told = doctor(camera.url, 0)
        assert "HTTP/1.1 200" in line(told, "answer") and "accepted" in line(told, "login")
        assert "mjpeg 80x48" in line(told, "video") and "key frames" not in told
        told = doctor(camera.public_url, 2)
        assert "HTTP/1.1 401" in line(told, "answer") and "put them into the address" in verdict(told)


def test_a_clock_that_is_wrong_is_a_note(camera: SimulatedCamera, doctor: Doctor) -> None:
    camera.fault("clock", jump=3700)
    told = doctor(camera.url + "?transport=udp", 0, seconds=2.0)
    camera.fault("clock", jump=-3700)
    assert "note" in line(told, "camera's clock") and "1 h 1 min ahead" in line(told, "camera's clock")
    assert "media by UDP" in line(told, "source")


@pytest.mark.parametrize("login", ["", f"{USER}:hunter2@"])
def test_passwords(camera: SimulatedCamera, doctor: Doctor, login: str) -> None:
    told = doctor(camera.public_url.replace("://", f"://{login}"), 2)
    assert "WRONG" in line(told, "login")
    assert ("does not accept these" if login else "put them into the address") in verdict(told)


@pytest.mark.parametrize(
    ("fault", "path", "answer", "words"),
    [(None, "/none", "404", "check the path"), ("404", "", "404", "check the path"), ("503", "", "503", "viewers")],
)
def test_refusals(
    camera: SimulatedCamera, doctor: Doctor, fault: str | None, path: str, answer: str, words: str
) -> None:
    if fault:
        camera.fault(fault)
    told = doctor(camera.url + path, 2)
    assert f"RTSP/1.0 {answer}" in line(told, "answer") and "WRONG" in line(told, "answer")
    assert words in verdict(told)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("stall", "no pictures come"), ("garbage", "damage"), ("kill", "closed the connection|answers")],
)
def test_what_ends_while_it_is_watched(camera: SimulatedCamera, doctor: Doctor, fault: str, words: str) -> None:
    with contextlib.ExitStack() as stack:
        sent = camera.status()["frames_sent"]

        def spoil() -> None:
            while camera.status()["frames_sent"] < sent + 60:
                time.sleep(0.05)
            camera.fault(fault, seconds=3600 if fault != "kill" else 0.5)

        thread = threading.Thread(target=spoil)
        thread.start()
        stack.callback(thread.join)
        told = doctor(camera.url, 2, seconds=60.0)
    assert "WRONG" in line(told, "pictures") and "then no more" in line(told, "pictures")
    assert re.search(words, told)


def test_hosts_and_ports_that_do_not_answer(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onlooker.pipeline.cli.doctor_source._ANSWER", 1.0)
    before = held()
    told = doctor(f"rtsp://{USER}:hunter2@127.0.0.1:{free_port()}/x", 2)
    assert "refused" in told and "RTSP is switched on" in verdict(told)
    for name in ("no-such-host.invalid", "cam..example"):
        assert "check the spelling" in verdict(doctor(f"rtsp://{USER}:hunter2@{name}/x", 2))
    with tcp_server(silent) as port:
        told = doctor(f"rtsp://127.0.0.1:{port}/x", 2)
        assert "stays silent" in line(told, "answer") and "does not answer" in verdict(told)
    # A queue of connections that is full drops what knocks, as a firewall does.
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(listener.getsockname())
        told = doctor(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x", 2)
    assert "firewall" in told and "no answer in time" in verdict(told)
    assert held() == before


def test_a_password_on_the_command_line_leaves_the_list_of_processes() -> None:
    arrived = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        arrived.set()
        silent(connection)

    with tcp_server(serve) as port:
        source = f"rtsp://{USER}:hunter2@127.0.0.1:{port}/x"
        command = [sys.executable, "-m", "onlooker.pipeline.cli.main", "doctor", "--source", source]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert arrived.wait(PATIENCE)
                shown = " ".join(psutil.Process(process.pid).cmdline())
                assert "doctor" in shown and "hunter2" not in shown
            finally:
                process.kill()


@pytest.mark.parametrize(
    ("scheme", "greeting", "words"),
    [
        ("rtsp", b"SSH-2.0-OpenSSH_9.2\r\n", "not a camera's stream"),
        ("rtsp", b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a camera's stream"),
        ("rtsp", b"\x1b[31m\x00\xff" * 50, "not a camera's stream"),
        ("http", b"RTSP/1.0 400 Bad Request\r\n\r\n", "not a camera's stream"),
        ("rtsp", b"", "closed the connection"),
        ("rtsps", b"RTSP/1.0 400 Bad Request\r\n\r\n", "encrypted connection failed"),
    ],
)
def test_servers_of_another_kind(doctor: Doctor, scheme: str, greeting: bytes, words: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(greeting)

    with tcp_server(serve) as port:
        told = doctor(f"{scheme}://{USER}:hunter2@127.0.0.1:{port}/x", 2)
    assert words in verdict(told)
    assert "\x1b" not in told and max(map(len, told.splitlines())) < 240


def odd_camera(media: str) -> bytes:
    head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    return (head + media).encode()


@pytest.mark.parametrize(
    ("media", "offers", "words"),
    [
        ("m=video 0 RTP/AVP 96\r\na=rtpmap:96 WONDER/90000\r\na=control:t0\r\n", "video WONDER", "here (WONDER)"),
        ("m=audio 0 RTP/AVP 8\r\na=control:t1\r\n", "audio PCMA", "at most sound"),
    ],
)
def test_streams_that_cannot_be_watched(doctor: Doctor, media: str, offers: str, words: str) -> None:
    description = odd_camera(media)

    def serve(connection: socket.socket) -> None:
        while request := connection.recv(4096).decode():
            number = next(one for one in request.split("\r\n") if one.lower().startswith("cseq"))
            extra, body = "", b""
            match request.split()[0]:
                case "DESCRIBE":
                    extra, body = (
                        f"Content-Type: application/sdp\r\nContent-Length: {len(description)}\r\n",
                        description,
                    )
                case "SETUP":
                    extra = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            connection.sendall(f"RTSP/1.0 200 OK\r\n{number}\r\n{extra}\r\n".encode() + body)
            if request.startswith("PLAY"):
                for count in range(100):
                    packet = bytes([0x80, 96, 0, count]) + (count * 3600).to_bytes(4, "big") + b"abcd" + bytes(200)
                    connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                    time.sleep(0.02)

    with tcp_server(serve) as port:
        told = doctor(f"rtsp://127.0.0.1:{port}/x", 2)
    assert line(told, "offers").endswith(offers)
    assert words in verdict(told)


def test_files_devices_and_what_is_no_source(doctor: Doctor, video: Path, tmp_path: Path) -> None:
    told = doctor(str(video), 0)
    assert line(told, "source").endswith("a.mp4, a file") and "25 a second" in line(told, "pictures")
    assert "10 a second" in line(doctor("lavfi:testsrc2=size=64x48:rate=10", 0), "pictures")
    told = doctor("webcam:97", 2)
    assert "cameras here" in told and "no such camera" in verdict(told)
    text = tmp_path / "page.txt"
    text.write_text("Welcome " * 500)
    assert "page.txt" in verdict(doctor(str(text), 2)) and str(tmp_path) not in doctor(str(text), 2)
    assert "no such file" in doctor(str(tmp_path / "none.mp4"), 2)
    assert "ftp:// cannot be read" in doctor("ftp://cam/x", 2)
    assert "--seconds" in doctor(str(video), 2, seconds=0)
