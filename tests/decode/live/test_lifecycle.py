"""Processes and descriptors: killed readers, killed workers, interrupts at bad moments, and what is left afterwards."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.items import LiveFrame
from onlooker.operators.decode.live.options import LiveOptions
from onlooker.operators.decode.live.reader import LiveReader
from tests.videos import write_video

from .sources import Log, check_conservation, free_port, gone, held, silent, tcp_server, wait_until

PATTERN = "lavfi:testsrc2=size=128x96:rate=50"
ENDLESS = LiveOptions(fps=None, size=(24, 32), backoff_first=0.1, backoff_cap=0.3, connect_timeout=60)


def pattern_reader(options: LiveOptions = ENDLESS) -> LiveReader:
    return LiveReader(parse_source(PATTERN), options)


def test_a_killed_worker_is_replaced_and_its_frames_are_counted_as_lost(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.ts", 500).read_bytes()

    def serve(connection) -> None:
        connection.sendall(data)
        connection.recv(1)

    options = LiveOptions(fps=None, size=(24, 32), policy="drop_oldest", queue=400, backoff_first=0.1, backoff_cap=0.2)
    with tcp_server(serve) as port, LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), options) as reader:
        log = Log(reader)
        for _ in range(3):
            log.more_frames(20)
            assert reader.worker_pid is not None
            os.kill(reader.worker_pid, signal.SIGKILL)
            assert log.wait_for_state("reconnecting").reason == "crashed"
        log.more_frames(20)
        counts = reader.counters()
        assert counts["frames_dropped_lost"] > 0, "frames waited in the killed processes"
        assert counts["connections"] == 4
    check_conservation(reader)
    assert reader.counters()["frames_waiting"] == 0


def test_nothing_is_left_behind() -> None:
    gc.collect()
    before = held()
    for _ in range(3):
        with pattern_reader() as reader:
            Log(reader).more_frames(3)
            assert held()[0] - before[0] == {reader.worker_pid}
            pid = reader.worker_pid
        assert pid is not None and gone(pid)
        reader.close()
        assert reader.read(0) == []
    unused = LiveReader(parse_source(PATTERN))
    unused.close()
    assert held() == before


def test_an_interrupt_ends_the_stream_in_the_middle_of_connecting() -> None:
    before = held()
    with tcp_server(silent) as port:
        address = parse_source(f"rtsp://127.0.0.1:{port}/x")
        for wait in (0.0, 1.5):
            with LiveReader(address, ENDLESS) as reader:
                timer = threading.Timer(wait, reader.interrupt)
                timer.start()
                log = Log(reader)
                log.until(lambda: reader.ended, patience=40)
                timer.join()
                assert log.states()[-1].reason == "interrupted"
                assert reader.worker_pid is None
                reader.interrupt()
            reader.interrupt()
    assert held() == before


def test_an_interrupt_cuts_a_long_wait_short() -> None:
    options = LiveOptions(backoff_first=600, backoff_cap=600)
    with LiveReader(parse_source(f"rtsp://127.0.0.1:{free_port()}/x"), options) as reader:
        log = Log(reader)
        assert log.wait_for_state("reconnecting").reason == "port_refused"
        timer = threading.Timer(0.5, reader.interrupt)
        timer.start()
        began = time.monotonic()
        log.items += reader.read(500)
        assert reader.ended and time.monotonic() - began < 250
        timer.join()


# A test run in the background may have been started with SIGINT ignored, which children inherit.
ORPHAN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from onlooker.operators.decode.live.address import parse_source
from onlooker.operators.decode.live.reader import LiveReader
reader = LiveReader(parse_source(sys.argv[1]))
while reader.seen == {}:
    reader.read(0.5)
print(reader.worker_pid, flush=True)
while True:
    reader.read(10)
"""


@pytest.mark.parametrize(
    ("where", "how"), [("connecting", "SIGKILL"), ("connecting", "SIGINT"), ("live", "SIGKILL"), ("live", "SIGTERM")]
)
def test_the_worker_dies_with_its_reader(where: str, how: str) -> None:
    with tcp_server(silent) as port:
        source = f"rtsp://127.0.0.1:{port}/x" if where == "connecting" else PATTERN
        command = [sys.executable, "-c", ORPHAN, source]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert not gone(worker)
        parent.send_signal(getattr(signal, how))
        parent.wait()
        parent.stdout.close()
        wait_until(lambda: gone(worker))


def test_a_hanging_worker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onlooker.operators.decode.live.reader._PULSE_PATIENCE", 2.0)
    with tcp_server(silent) as port, LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), ENDLESS) as reader:
        log = Log(reader)
        log.until(lambda: reader.seen)
        worker = reader.worker_pid
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        assert log.wait_for_state("reconnecting").reason == "crashed"
        assert gone(worker)


def test_the_command_line_and_environment_of_the_worker_hold_no_secret() -> None:
    with tcp_server(silent) as port:
        address = parse_source(f"rtsp://admin:s3cr3t@127.0.0.1:{port}/x?token=t0k3n")
        with LiveReader(address, ENDLESS) as reader:
            log = Log(reader)
            log.until(lambda: reader.seen)
            worker = psutil.Process(reader.worker_pid)
            told = repr((worker.cmdline(), worker.environ(), worker.name(), log.items, reader.counters(), reader.seen))
            assert "worker" in told
            assert "s3cr3t" not in told and "t0k3n" not in told


def test_the_worker_imports_no_torch_and_starts_small() -> None:
    with pattern_reader() as reader:
        Log(reader).more_frames(1)
        maps = Path(f"/proc/{reader.worker_pid}/maps")
        if maps.exists():
            assert "libav" in maps.read_text()
            assert "torch" not in maps.read_text()
        assert psutil.Process(reader.worker_pid).memory_info().rss < 200 << 20


AWAY = 0.3


def slow_ages(policy: str) -> list[float]:
    """Ages of frames, in seconds, for a consumer that takes a fifteenth of what a camera sends."""
    options = LiveOptions(fps=None, size=(24, 32), policy=policy, queue=1000)  # type: ignore[arg-type]
    with pattern_reader(options) as reader:
        log = Log(reader)
        log.more_frames(1)
        ages = []
        while len(ages) < 10:
            for item in log.step():
                if isinstance(item, LiveFrame):
                    ages.append(time.monotonic() - item.arrival)
            time.sleep(AWAY)
        if policy == "latest":
            assert reader.counters()["frames_dropped_replaced"] > 5 * len(ages)
        return ages


def test_a_slow_consumer_gets_fresh_frames_and_its_twin_with_a_queue_does_not() -> None:
    fresh, stale = slow_ages("latest"), slow_ages("drop_oldest")
    assert min(stale[-5:]) > 1.0, "a queue makes the age grow"
    assert sorted(fresh)[len(fresh) // 2] < min(stale[-5:]) / 2, "taken when asked for, not left in a pipe"


def test_memory_stays_flat_while_nobody_reads() -> None:
    options = LiveOptions(fps=None, size=(24, 32), policy="latest")
    with LiveReader(parse_source("lavfi:testsrc2=size=640x480:rate=50"), options) as reader:
        log = Log(reader)
        log.more_frames(20)
        worker = psutil.Process(reader.worker_pid)
        before, count = worker.memory_info().rss, reader.counters()["frames_in"]
        while reader.counters()["frames_in"] < count + 80:  # it goes on decoding, 0.5 MB a picture
            time.sleep(0.5)
            log.step()
        assert reader.counters()["frames_dropped_replaced"] > 60
        assert worker.memory_info().rss < before + (16 << 20)


def test_memory_stays_flat_while_frames_are_delivered() -> None:
    source = parse_source("lavfi:testsrc2=size=1280x720:rate=25")
    with LiveReader(source, LiveOptions(fps=None, preview=180)) as reader:
        log = Log(reader)
        log.more_frames(15)
        worker = psutil.Process(reader.worker_pid)
        before = worker.memory_info().rss
        log.more_frames(60)
        assert worker.memory_info().rss < before + (25 << 20), "60 pictures of 1.4 MB passed"


def test_a_hardware_decoder_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    options = LiveOptions(fps=None, size=(24, 32), hwaccel="vaapi", backoff_first=0.1, backoff_cap=0.2)
    data = write_video(tmp_path / "a.ts", 100).read_bytes()
    with tcp_server(lambda connection: connection.sendall(data)) as port:
        with LiveReader(parse_source(f"tcp://127.0.0.1:{port}"), options) as reader:
            log = Log(reader)
            log.until(lambda: len(log.epochs()) >= 3)
            assert reader.counters()["connections"] >= 3
        assert len(log.notices()) == 1 and "CPU" in log.notices()[0].message
