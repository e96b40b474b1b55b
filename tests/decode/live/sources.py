"""Sources for tests of live reading: a GStreamer RTSP camera and small TCP and HTTP servers, and a reader's log."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from onlooker.operators.decode.live.items import EpochStart, Item, LiveFrame, Notice, StateChange
from onlooker.operators.decode.live.reader import LiveReader

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
# The machine may be busy: conditions get this many seconds, and tests assert no times of their own.
PATIENCE = 90.0


@functools.cache
def has_gstreamer() -> bool:
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    with contextlib.suppress(OSError):
        return subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True).returncode == 0
    return False


# Where it is required, its absence fails the tests that need it instead of skipping them.
needs_gstreamer = pytest.mark.skipif(
    os.environ.get("ONLOOKER_REQUIRE_GSTREAMER") != "1" and not has_gstreamer(),
    reason="no GStreamer RTSP server: apt-get install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-ugly python3-gi",
)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def h264(width: int = 160, height: int = 120, rate: int = 25) -> str:
    return (
        f"( videotestsrc is-live=true ! video/x-raw,width={width},height={height},framerate={rate}/1 "
        "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96 )"
    )


def jpeg(width: int, height: int, rate: int = 10) -> str:
    return (
        f"( videotestsrc is-live=true ! video/x-raw,width={width},height={height},framerate={rate}/1 "
        "! videoconvert ! video/x-raw,format=I420 ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
    )


SOUND = "( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 )"


class Camera:
    """A GStreamer RTSP server at a fixed port, to be started, stopped and changed at will."""

    def __init__(self, launch: str = h264(), login: str = "") -> None:
        self.port, self.launch, self.login = free_port(), launch, login
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/cam"

    def start(self, launch: str | None = None) -> None:
        self.launch = launch or self.launch
        command = [SYSTEM_PYTHON, str(HERE / "gst_server.py"), str(self.port), self.launch, self.login]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready"

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def __enter__(self) -> Camera:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextlib.contextmanager
def tcp_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Yield the port of a server whose every connection is given to `serve` in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []
        open_ones: list[socket.socket] = []

        def work(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                serve(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    open_ones.append(connection)
                    threads.append(threading.Thread(target=work, args=(connection,)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for connection in open_ones:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


@contextlib.contextmanager
def http_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Yield the address of an HTTP server that answers every GET by `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def silent(connection: socket.socket) -> None:
    """A server that takes the connection and never says a word."""
    while connection.recv(4096):
        pass


def send_status(code: int, headers: dict[str, str] | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@contextlib.contextmanager
def udp_sender(path: Path, seconds: float, port: int, loss: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(HERE / "udp_sender.py"), str(path), str(seconds), "127.0.0.1", str(port), str(loss)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Log:
    """Reads from a reader and keeps what came, checking what must always hold."""

    def __init__(self, reader: LiveReader) -> None:
        self.reader = reader
        self.items: list[Item] = []
        self._t: dict[int, float] = {}
        self._epoch = 0

    def step(self, timeout: float = 1.0) -> list[Item]:
        items = self.reader.read(timeout)
        for item in items:
            if isinstance(item, EpochStart):
                assert item.epoch > self._epoch
                self._epoch = item.epoch
            elif isinstance(item, LiveFrame):
                assert item.epoch == self._epoch
                assert item.t > self._t.get(item.epoch, -1.0), "event time increases"
                self._t[item.epoch] = item.t
        check_conservation(self.reader)
        self.items += items
        return items

    def until(self, done: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """Read on until `done()` is true; its value."""
        deadline = time.monotonic() + patience
        while not (found := done()):
            told = [item for item in self.items if not isinstance(item, LiveFrame)]
            assert time.monotonic() < deadline, f"did not happen; told so far: {told[-8:]}"
            assert not self.reader.ended or done(), f"ended: {told[-3:]}"
            self.step()
        return found

    def frames(self) -> list[LiveFrame]:
        return [item for item in self.items if isinstance(item, LiveFrame)]

    def epochs(self) -> list[EpochStart]:
        return [item for item in self.items if isinstance(item, EpochStart)]

    def states(self) -> list[StateChange]:
        return [item for item in self.items if isinstance(item, StateChange)]

    def notices(self) -> list[Notice]:
        return [item for item in self.items if isinstance(item, Notice)]

    def more_frames(self, number: int, patience: float = PATIENCE) -> None:
        goal = len(self.frames()) + number
        self.until(lambda: len(self.frames()) >= goal, patience)

    def wait_for_state(self, state: str, reason: str | None = None) -> StateChange:
        """Read on until the stream comes into this state; changes of before do not count."""
        before = len(self.items)

        def found() -> StateChange | None:
            return next(
                (
                    item
                    for item in self.items[before:]
                    if isinstance(item, StateChange) and item.state == state and reason in (None, item.reason)
                ),
                None,
            )

        change: StateChange = self.until(found)
        return change


def check_conservation(reader: LiveReader) -> None:
    """in = delivered + waiting + dropped{reason}, and no part of it is negative."""
    counts = {name: value for name, value in reader.counters().items() if name != "connections"}
    assert all(value >= 0 for value in counts.values()), counts
    assert 2 * counts["frames_in"] == sum(counts.values()), counts


def held() -> tuple[set[int], int, int]:
    """What this process holds: children, descriptors, threads."""
    me = psutil.Process()
    return {child.pid for child in me.children(recursive=True)}, me.num_fds(), threading.active_count()


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


def wait_until(done: Callable[[], Any], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT
ENVIRON = os.environ
