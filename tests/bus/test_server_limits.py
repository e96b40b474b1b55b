"""What peers and disks can do to a bus, and that it goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import zmq

from onlooker.pipeline.bus.intake import Given, Intake
from onlooker.pipeline.bus.sockets import BusError, Wake
from onlooker.pipeline.bus.store_read import StoreReader

from .buses import bus, caption, eventually, free_address, place, put, records
from .raw_clients import client, frame, greet, tcp

SUBSCRIBER = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.subscribe(b"")
socket.connect(sys.argv[1])
while True:
    print(socket.recv_multipart()[0].decode(), flush=True)
"""


def test_a_full_queue_makes_those_wait_who_fill_it() -> None:
    wake = Wake()
    intake = Intake(wake, events=3)
    [record] = records([caption(0)])
    assert intake.put(Given([record] * 2)) and not intake.put(Given([record] * 2), timeout=0.05)
    waiting = threading.Thread(target=intake.put, args=(Given([record] * 2),))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive() and len(intake) == 2
    assert [len(given.records) for given in intake.take()] == [2]
    waiting.join()
    assert len(intake) == 2
    intake.close("over.")
    with pytest.raises(BusError, match="over"):
        intake.put(Given([record]))
    assert len(intake.take()) == 1  # what was taken is still there
    wake.close()


def test_bytes_that_wait_are_bounded_too() -> None:
    wake = Wake()
    intake = Intake(wake, size=1000)
    [record] = records([caption(0, text="x" * 2000)])
    assert intake.put(Given([record]))  # alone, since it would never fit otherwise
    assert not intake.put(Given([record]), timeout=0.05)
    wake.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process can grow beyond this: what a full disk does to the store."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_events_are_still_published(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    with place() as address, bus(address, store, heartbeat=0.1) as server, client(address) as one:
        one.wait()
        put(server, [caption(0)])
        assert one.events(1)[0][1]["seq"] == 1
        with largest_file(max(path.stat().st_size for path in tmp_path.iterdir())):
            put(server, [caption(n, text="x" * 5000) for n in range(1, 50)])
            [(topic, header, body), *rest] = one.events(50)
            alarm = json.loads(body)["data"]
            assert topic == b"v1/bus/alarm/" and header["seq"] is None
            assert (alarm["code"], alarm["phase"], alarm["t_end"]) == ("disk_full", "new", None)
            assert "no room on the disk" in alarm["message"]
            assert [header["seq"] for _, header, _ in rest] == [None] * 49
            assert one.ask(op="hello")[0]["seq"] == 1  # questions are answered
            put(server, [caption(50)])
            assert one.events(1)[0][1]["seq"] is None  # one alarm, not one for each event
        # By itself, without another event.
        [(topic, header, body)] = one.events(1)
        alarm = json.loads(body)["data"]
        assert (alarm["code"], alarm["phase"], header["seq"]) == ("disk_full", "end", 2)
        assert "50 were told to subscribers alone" in alarm["message"]
        put(server, [caption(51)])
        assert one.events(1)[0][1]["seq"] == 3
        reader = StoreReader(store)
        assert [stored.header.seq for stored in reader.page(0).stored] == [1, 2, 3]
        reader.close()
        assert server.counters()["unstored"] == 50


def test_a_subscriber_that_is_stopped_is_dropped_and_comes_back(tmp_path: Path) -> None:
    address = free_address()
    with bus(address, tmp_path / "s.db", heartbeat=0.1, dead_after=1.5) as server:
        process = subprocess.Popen([sys.executable, "-c", SUBSCRIBER, address], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            process.stdout.readline()
            os.kill(process.pid, signal.SIGSTOP)
            for number in range(600):  # more than TCP takes for it
                server.put(records([caption(number, text="x" * 50_000)]))
            eventually(lambda: server.subscribers == 0)
            os.kill(process.pid, signal.SIGCONT)
            eventually(lambda: server.subscribers == 1)
        finally:
            process.kill()
            process.communicate()


def test_subscriptions_are_bounded_and_who_asks_for_too_many_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onlooker.pipeline.bus.guard._SUBSCRIPTIONS", 4096)
    address = free_address()
    with bus(address, tmp_path / "s.db", heartbeat=0.1) as server, client(address) as good:
        good.wait()
        connection = tcp(address)
        greet(connection, b"SUB")
        number, until = 0, time.monotonic() + 120
        with pytest.raises(OSError):
            while time.monotonic() < until:
                number += 1000
                connection.sendall(b"".join(frame(b"\1v1/%d/" % n) for n in range(number, number + 1000)))
        connection.close()
        eventually(lambda: server.counters()["cut"] == 1)
        put(server, [caption(0)])
        assert good.events(1)[0][1]["seq"] == 1


@pytest.mark.parametrize("kind", ["events", "requests"])
def test_a_message_without_end_is_cut_off(kind: str, tmp_path: Path) -> None:
    address = free_address()
    with bus(address, tmp_path / "s.db", heartbeat=0.1) as server, client(address) as good:
        good.wait()
        before = psutil.Process().memory_info().rss
        connection = tcp(getattr(server.addresses, kind))
        greet(connection, b"SUB" if kind == "events" else b"DEALER")
        size = 200 if kind == "events" else 60_000
        part, sent, until = frame(b"x" * size, more=True) * (60_000 // size), 0, time.monotonic() + 60
        with pytest.raises(OSError):
            while time.monotonic() < until:
                connection.sendall(part)
                sent += len(part)
                time.sleep(0.001)
        connection.close()
        assert server.counters()["cut"] == 1 and sent > 8 << 20
        assert psutil.Process().memory_info().rss - before < 400 << 20
        put(server, [caption(0)])
        assert good.events(1)[0][1]["seq"] == 1


def test_what_a_publisher_sends_to_the_socket_of_events_is_cut_off(tmp_path: Path) -> None:
    with (
        place() as address,
        bus(address, tmp_path / "s.db", heartbeat=0.1) as server,
        zmq.Context() as context,
        context.socket(zmq.XSUB) as rude,
    ):
        rude.linger = 0
        rude.connect(address)
        rude.send(b"I am no subscription")
        eventually(lambda: server.counters()["cut"] == 1)


def test_replies_that_nobody_reads_do_not_pile_up(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db") as server, client(address) as good:
        put(server, [caption(n, text="x" * 1_000_000) for n in range(4)])
        with client(address) as lazy:
            lazy.dealer.rcvhwm = 1
            before = psutil.Process().memory_info().rss
            for _ in range(100):
                lazy.send(op="replay", after={"seq": 0})
            for _ in range(20):
                assert good.ask(op="hello")[0]["ok"]
            eventually(lambda: server.counters()["requests"] >= 120)
            # 100 pages are 300 MB; the client's own end of the connection lives in this process too.
            assert psutil.Process().memory_info().rss - before < 150 << 20
