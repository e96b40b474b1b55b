"""Starting and ending: one line for what is wrong, and nothing left behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from onlooker.operators.errors import OnlookerError
from onlooker.pipeline.cli.main import main
from onlooker.pipeline.simulate import SimulatedCamera
from onlooker.pipeline.simulate.faults import KINDS
from tests.simulate.rtsp_client import PATIENCE, RtspClient, wait_for
from tests.simulate.watching import frames, opened, take
from tests.videos import write_audio, write_video

COMMAND = [sys.executable, "-m", "onlooker.pipeline.cli.main", "simulate-camera"]


def test_nothing_is_left_after_stop(video: Path) -> None:
    me = psutil.Process()
    before = me.num_fds(), threading.active_count(), me.children(recursive=True)
    with SimulatedCamera(video, codec="h265") as camera, RtspClient(camera.url) as client:
        client.play()
        next(client.packets())
        port = int(camera.url.rpartition(":")[2].partition("/")[0])
    assert not camera.running and not psutil.pid_exists(camera.pid)
    assert (me.num_fds(), threading.active_count(), me.children(recursive=True)) == before
    camera.stop()  # harmless when repeated
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_a_camera_keeps_nothing_of_clients_that_left(camera: SimulatedCamera) -> None:
    take(camera.url, 2)
    wait_for(lambda: camera.status()["clients"] == 0, "the first client's end")
    process = psutil.Process(camera.pid)
    before = process.num_fds(), process.num_threads()
    for transport in ("tcp", "udp") * 2:
        take(camera.url, 2, transport)
    for _ in range(5):
        with RtspClient(camera.url) as client:
            client.play()
    wait_for(lambda: camera.status()["clients"] == 0, "the clients' end")
    assert camera.status()["playing"] == 0
    # Before and after, the connection that asked for the status may or may not be closed yet: never more than before,
    # then, which a single descriptor kept of each of nine clients would be.
    wait_for(lambda: process.num_fds() <= before[0] and process.num_threads() <= before[1], "its descriptors")


def test_it_ends_with_its_parent(video: Path) -> None:
    code = (
        "import sys, time; from onlooker.pipeline.simulate import SimulatedCamera\n"
        f"camera = SimulatedCamera({str(video)!r}); print(camera.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    try:
        child.wait(PATIENCE)
    finally:
        if child.is_running():  # then the test has failed; nothing else would end it
            child.kill()


@pytest.mark.parametrize("playing", [False, True])
def test_ctrl_c_is_clean(video: Path, tmp_path: Path, playing: bool) -> None:
    output = tmp_path / "output"
    with output.open("w") as file:
        process = subprocess.Popen([*COMMAND, str(video), "--port=0"], stdout=file, stderr=subprocess.STDOUT)
    try:
        line = wait_for(
            lambda: ("shows" in output.read_text() or process.poll() is not None) and output.read_text(), ""
        )
        url = line.split()[1]
        if playing:
            with opened(url) as container:
                assert next(frames(container))
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE) == 130
        else:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
        process.wait()
    text = output.read_text()
    assert text.endswith("onlooker: interrupted\n") and "Traceback" not in text


def test_what_cannot_start_is_told_in_one_line(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = str(write_video(tmp_path / "wide.mp4", 3))
    sound = str(write_audio(tmp_path / "sound.mp4"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, message in [
            ([str(video), f"--port={port}"], f"cannot listen on port {port}"),
            ([str(video), "--port=0", f"--control={port}"], f"cannot listen on port {port}"),
            ([str(video), "--port=99999"], "cannot listen on port 99999"),
            ([str(tmp_path / "none.mp4")], "no such file"),
            ([sound], "no video"),
            ([wide, "--codec=mjpeg", "--size=4000x80"], "at most 2040x2040"),
        ]:
            assert main(["simulate-camera", *arguments]) == 2
            told = capsys.readouterr().err
            assert message in told and told.count("\n") == 1
        with pytest.raises(OnlookerError, match=f"^cannot listen on port {port}"):
            SimulatedCamera(video, port=port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fault=explode"], "no fault 'explode'"),
        (["--size=big"], "WIDTHxHEIGHT"),
        (["--fps=0"], "--fps"),
        (["--user=me"], "--password-env"),
        (["--user=me", "--password-env=ONLOOKER_NO_SUCH_NAME"], "not set"),
        (["--protocol=http-mjpeg", "--codec=h264"], "leave --codec out"),
    ],
)
def test_wrong_options_are_told(
    video: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate-camera", str(video), *options]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_help_explains_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate-camera", "--help"])
    text = capsys.readouterr().out
    assert all(spec.example in text and spec.does in text for spec in KINDS.values())


def test_wrong_commands_are_answered_and_survived(camera: SimulatedCamera) -> None:
    address = camera._control
    with socket.create_connection(address, PATIENCE) as connection, connection.makefile("rwb") as lines:
        for wrong in (
            b"hello",
            b"[1]",
            b"{}",
            b'{"fault": 5}',
            b'{"fault": "stall", "hours": 2}',
            b"\xff",
            b"[" * 9999,
        ):
            lines.write(wrong + b"\n")
            lines.flush()
            answer = json.loads(lines.readline())
            assert answer["error"] and "\n" not in answer["error"], wrong
        lines.write(b'{"status": true}\n')
        lines.flush()
        assert json.loads(lines.readline())["ok"]
    with socket.create_connection(address, PATIENCE) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"x" * 200_000)  # no line at all
        assert connection.recv(100) == b""
    with pytest.raises(OnlookerError, match="at most 2040"):
        camera.fault("codec", codec="mjpeg") and camera.fault("size", size="4000x4000")
    assert camera.running


def test_commands_go_nowhere_but_to_this_machine(camera: SimulatedCamera) -> None:
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(camera.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    assert os.getpid() != camera.pid


def test_stop_by_command(video: Path) -> None:
    with SimulatedCamera(video) as camera:
        camera._ask({"stop": True})
        assert camera.wait(PATIENCE) == 0
