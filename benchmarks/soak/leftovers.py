"""What sessions and commands leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from onlooker.pipeline.simulate import SimulatedCamera
from soak.scenario import Found, Soak, say, word
from soak.watching import PATIENCE, Watched, held

NOBODY = "rtsp://127.0.0.1:1/cam"
"""An address at which no port is open."""
_GOING = 30.0
"""Seconds in which whatever is going may go."""


class Mute:
    """A port that takes connections and never says a word."""

    def __init__(self) -> None:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/cam"
        self.came: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def hung_up(self) -> bool:
        """Whether all who came have closed their connections; forgets them."""
        closed = True
        for one in self.came:
            one.settimeout(_GOING)
            try:
                while one.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            except TimeoutError:
                closed = False
            one.close()
        self.came.clear()
        return closed

    def close(self) -> None:
        """Listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.hung_up()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.came.append(self._listener.accept()[0])


def leftovers(soak: Soak) -> Found:
    """Stop sessions and commands at bad moments and compare what there is with before."""
    rows: list[list[object]] = []
    with SimulatedCamera(soak.video) as camera, contextlib.closing(Mute()) as mute:
        moments: list[tuple[str, str, Callable[[Watched], object]]] = [
            ("while frames come", camera.url, lambda watched: len(watched.frames["cam"]) > 5),
            ("while connecting to a host that says nothing", mute.url, lambda _: mute.came),
            ("while waiting for the next attempt", NOBODY, lambda watched: len(watched.states["cam"]) > 2),
        ]
        _session(soak, *moments[0][1:])  # what torch and others keep for good is there after the first
        for name, url, ready in moments:
            before = held()
            _session(soak, url, ready)
            left = _left(before, mute)
            rows.append([f"session stopped {name}", left, "", word(left == "nothing")])
            say(f"session stopped {name}: left {left}")
        ctrl_c: list[tuple[str, str, Callable[[str], object]]] = [
            (moments[1][0], mute.url, lambda _: mute.came),
            (moments[2][0], NOBODY, lambda log: log.count("reconnecting") > 1),
            (moments[0][0], camera.url, lambda log: '"live"' in log),
        ]
        for name, url, due in ctrl_c:
            code, left = _command(url, due, mute)
            rows.append([f"Ctrl-C {name}", left, code, word(left == "nothing" and code == 130)])
            say(f"Ctrl-C {name}: code {code}, left {left}")
    good = all(row[-1] == word(True) for row in rows)
    rule = "no thread, process, socket or descriptor more than before; the command ends with code 130"
    return Found(good, rule, ["moment", "left behind", "exit code", "held"], rows)


def _session(soak: Soak, url: str, ready: Callable[[Watched], object]) -> None:
    with soak.watch({"cam": url}) as watched:
        watched.until(lambda: ready(watched), "the moment to stop")


def _left(before: dict[str, set[str]], mute: Mute) -> str:
    """What is there that was not, once it had time to go; in words."""
    closed, deadline = mute.hung_up(), time.monotonic() + _GOING
    while True:
        more = {kind: now - before[kind] for kind, now in held().items()}
        found = [f"{kind}: {', '.join(sorted(names))}" for kind, names in more.items() if names]
        if not found or time.monotonic() > deadline:
            return "; ".join([*found, *([] if closed else ["an open connection"])]) or "nothing"
        time.sleep(0.1)


def _command(url: str, due: Callable[[str], object], mute: Mute) -> tuple[int, str]:
    """Run the command, press Ctrl-C when it is due; its exit code, and which processes live on."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.jsonl"
        command = [sys.executable, "-m", "onlooker.pipeline.cli.main", "run", url, "--runner", "local"]
        process = subprocess.Popen(
            [*command, "--events", str(log)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with _deadline() as late:
                while not (log.exists() and due(log.read_text())) and not late():
                    time.sleep(0.05)
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        _, alive = psutil.wait_procs(family, _GOING)
    left = [f"process {one.pid}" for one in alive] + ([] if mute.hung_up() else ["an open connection"])
    return code, "; ".join(left) or "nothing"


@contextlib.contextmanager
def _deadline() -> Iterator[Callable[[], bool]]:
    """Say when it has taken too long; the run is then interrupted as it is."""
    end = time.monotonic() + PATIENCE
    yield lambda: time.monotonic() > end
