"""`onlooker run` on live sources: Ctrl-C at any moment, secrets that stay secret, files in real time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
import yaml

from onlooker.operators.events import Event, parse_event
from onlooker.pipeline.cli.main import main
from onlooker.pipeline.simulate import SimulatedCamera
from tests.decode.live.sources import gone, wait_until
from tests.videos import write_video

COMMAND = [sys.executable, "-m", "onlooker.pipeline.cli.main", "run"]
SECRETS = ("s3cretword", "t0ken5678")


class Running:
    """`onlooker run` in a session of its own, as in a terminal; whatever it says and writes is read as it comes."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.log = folder / "events.jsonl"
        self.said = ""
        self.process = subprocess.Popen(
            [*COMMAND, *arguments, "--events", str(self.log)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def events(self) -> list[Event]:
        return [parse_event(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def until(self, done: Callable[[], Any], patience: float = 240.0) -> None:
        deadline = time.monotonic() + patience
        while not done():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def family(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def ctrl_c(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(240)
        self._listener.join()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._listener.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def running(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Running]:
    run = Running(folder, *arguments, env=env)
    try:
        yield run
    finally:
        run.close()


def statuses(run: Running) -> list[str]:
    return [e.data.status for e in run.events() if e.kind == "stream"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_ctrl_c_while_connecting_leaves_a_whole_log_no_process_and_no_secret(tmp_path: Path, runner: str) -> None:
    # One part of the address comes from the environment; what is written out has to be hidden all the same.
    url = f"rtsp://admin:{SECRETS[0]}@${{env:CAMERA_HOST}}:1/cam?auth={SECRETS[1]}"
    options = ("--runner", runner, "-o", "decode.backoff_cap=0.5")
    with running(tmp_path, url, *options, env={"CAMERA_HOST": "127.0.0.1"}) as run:
        run.until(lambda: statuses(run).count("reconnecting") >= 2)
        family = run.family()
        titles = " ".join(" ".join(process.cmdline()) for process in family)
        assert "onlooker" in titles, "the list of processes was read"
        told = statuses(run)
        assert run.ctrl_c() == 130
        for process in family:
            wait_until(lambda: gone(process.pid))  # noqa: B023
        assert told[0] == "connecting" and statuses(run)[-1] == "ended"
        assert run.events()[-1].data.side.counters["frames_in"] == 0  # type: ignore[union-attr, index]
        assert "nothing answers on port 1" in run.said and "Traceback" not in run.said
        for secret in SECRETS:
            assert secret not in titles + run.said + run.log.read_text()


def graph_of_cameras(path: Path, **cameras: str) -> str:
    """A graph without captions, which loads faster than one with them."""
    document = {
        "name": "yard",
        "cameras": [{"name": name, "url": url} for name, url in cameras.items()],
        "nodes": {
            "decode": {"use": "decode", "stage": "decode", "config": {"fps": 2.0, "chunk": 4}},
            "tower": {"use": "clip_tower", "inputs": {"frames": "decode.frames"}, "config": {"batch": 1}},
            "queries": {
                "use": "query_localizer",
                "inputs": {"embedding": "tower.embedding"},
                "config": {"queries": ["a test pattern"], "on": -5.0, "off": -6.0},
            },
        },
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_the_cameras_of_a_graph_are_watched_with_a_password_from_the_environment(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 100, gop=25, codec_options={"bf": "0"})
    with SimulatedCamera(video, user="admin", password=SECRETS[0]) as camera:
        url = camera.public_url.replace("://", "://admin:${env:DOOR}@")
        graph = graph_of_cameras(tmp_path / "yard.yaml", door=url, lamp="lavfi:testsrc2=size=64x48:rate=10")
        with running(tmp_path, "--graph", graph, "--runner", "local", env={"DOOR": SECRETS[0]}) as run:
            found = {"door", "lamp"}
            run.until(lambda: {e.data.stream for e in run.events() if e.kind == "query"} == found)
            assert run.ctrl_c() == 130
            assert SECRETS[0] not in run.said + run.log.read_text()
            assert run.said.count("frames in = ") == 2
    ends = {e.data.stream: e for e in run.events() if e.kind == "stream" and e.phase == "end"}
    for end in ends.values():
        counters = end.data.side.counters  # type: ignore[union-attr]
        assert counters is not None
        dropped = sum(n for name, n in counters.items() if name.startswith("frames_dropped_"))
        assert counters["frames_in"] == counters["frames_processed"] + dropped
        assert counters["frames_processed"] > 0
    assert set(ends) == found
    first = next(e for e in run.events() if e.kind == "query")
    assert first.data.media_epoch > 1e12 and first.data.side is not None and first.data.side.wall is not None


def test_a_file_in_real_time_is_read_as_if_it_were_a_camera(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", 50)
    graph = graph_of_cameras(tmp_path / "yard.yaml")
    names = {"vtt": "c.vtt", "srt": "c.srt", "report": "{stream}.html", "video": "a.mp4"}
    outputs = [word for option, name in names.items() for word in (f"--{option}", str(tmp_path / name))]
    with running(tmp_path, str(video), "--pace", "realtime", "--graph", graph, "--runner", "local", *outputs) as run:
        assert run.wait() == 0, run.said
    ended = run.events()[-1].data
    assert ended.side is not None and ended.side.counters is not None
    assert ended.side.counters["frames_in"] == 50 and ended.side.counters["frames_processed"] == 4
    assert "source node is `live`" in run.said
    settled = [e for e in run.events() if e.kind == "query" and e.phase == "end"]
    assert (
        (tmp_path / "c.vtt").read_text().count("-->") == (tmp_path / "c.srt").read_text().count("-->") == len(settled)
    )
    assert "data:image/jpeg" in (tmp_path / "clip.html").read_text()
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]  # type: ignore[arg-type]
    assert len(times) >= 4 and times == sorted(times)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rtsp://u:s3cretword@host/a", "-o", "decode.policy=block", "--runner", "local"], "cannot wait; use policy"),
        (["rtsp://u:s3cretword@host/a", "lavfi:testsrc", "--vtt", "a.vtt"], "'a-{stream}.vtt', or write --events"),
        (["rtsp://u:s3cretword@host/a", "--activitynet", "a.json"], "for a live source write --events"),
        (["gopher://u:s3cretword@host/a"], "cannot be read; use one of"),
        (["lavfi:testsrc", "--graph", "dense", "--mode", "paper"], "cannot watch a live source"),
        ([], "nothing to watch"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1 and "s3cretword" not in said
