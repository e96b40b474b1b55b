"""Pipelines hand their events over to a bus in another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from onlooker.pipeline.bus.handover import UNCONFIRMED, Handover
from onlooker.pipeline.bus.protocol import Addresses
from onlooker.pipeline.bus.requests import Command, RequestError
from onlooker.pipeline.bus.sockets import BusError
from onlooker.pipeline.bus.store_read import StoreReader

from .buses import bus, caption, eventually, free_address, place
from .raw_clients import PATIENCE, client

SERVE = """
import sys, time
from pathlib import Path
from tests.bus.buses import bus
with bus(sys.argv[1], Path(sys.argv[2]), ingest=True):
    print("ready", flush=True)
    time.sleep(600)
"""


class Bus:
    """A bus in a process of its own."""

    def __init__(self, address: str, store: Path) -> None:
        command = [sys.executable, "-c", SERVE, address, str(store)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def body(number: int, stream: str = "cam1") -> bytes:
    return caption(number, stream).to_json().encode()


def numbers(store: Path) -> list[str]:
    """The words of all captions that a store holds, in order."""
    reader, found, after = StoreReader(store), list[str](), 0
    while True:
        page = reader.page(after, kinds=["caption"])
        found += [json.loads(stored.body)["data"]["text"] for stored in page.stored]
        if page.upto >= page.last:
            reader.close()
            return found
        after = page.upto


def raw(address: str) -> zmq.Socket[Any]:
    """A pipeline's socket, by hand."""
    socket: zmq.Socket[Any] = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(Addresses.of(address).ingest)
    return socket


def say(socket: zmq.Socket[Any], words: dict[str, Any], *bodies: bytes) -> dict[str, Any]:
    """The next answer."""
    socket.send_multipart([json.dumps({"v": 1, **words}).encode(), *bodies])
    assert socket.poll(PATIENCE * 1000)
    answer: dict[str, Any] = json.loads(socket.recv_multipart()[0])
    return answer


def test_each_event_comes_once_though_the_bus_is_killed_again_and_again(tmp_path: Path) -> None:
    address, store, count = free_address(), tmp_path / "s.db", 3000
    server = Bus(address, store)
    handover = Handover(address, again_after=0.5)
    handover.open(PATIENCE)
    on_their_way = 0
    try:
        for number in range(count):
            handover.put(body(number))
            if number % 1000 == 500:
                server.kill()
                on_their_way += number + 1 - handover.confirmed
                server = Bus(address, store)
        assert handover.close(PATIENCE) == 0
    finally:
        server.kill()
    assert on_their_way > 0  # it was killed in the middle
    assert numbers(store) == [f"number {number}" for number in range(count)]


def test_numbers_that_come_again_are_passed_over_and_gaps_are_refused(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db", ingest=True) as server:
        one = raw(address)
        put = {"op": "put", "run": "r1", "n": 1, "count": 2}
        assert say(one, put, body(0), body(1)) == {"v": 1, "op": "stored", "run": "r1", "n": 2}
        assert say(one, put, body(0), body(1))["n"] == 2
        assert say(one, {**put, "n": 2, "count": 3}, body(1), body(2), body(3))["n"] == 4
        assert say(one, {**put, "n": 9, "count": 1}, body(8))["n"] == 4
        one.close()
        assert numbers(tmp_path / "s.db") == [f"number {number}" for number in range(4)]
        assert server.store.last_seq == 4


def test_what_is_no_event_is_refused_and_the_others_are_taken(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db", ingest=True):
        one = raw(address)
        answers = [say(one, {"op": "put", "run": "r", "n": 1, "count": 3}, body(0), b"{}", body(2))]
        assert one.poll(PATIENCE * 1000)
        answers.append(json.loads(one.recv_multipart()[0]))
        one.close()
        assert {answer["op"]: answer["n"] for answer in answers} == {"stored": 3, "refused": 2}
        assert numbers(tmp_path / "s.db") == ["number 0", "number 2"]


def test_a_run_that_falls_silent_is_taken_for_dead_and_may_come_back(tmp_path: Path) -> None:
    with (
        place() as address,
        bus(address, tmp_path / "s.db", ingest=True, dead_run=1.0) as server,
        client(address) as one,
    ):
        one.wait()
        pipeline = raw(address)
        opened = caption(0, phase="new").to_json().encode()
        say(pipeline, {"op": "put", "run": "r1", "n": 1, "count": 1}, opened)
        assert one.ask(op="snapshot")[0]["count"] == 1
        _, (topic, header, alarm) = one.events(2)
        assert topic == b"v1/bus/alarm/" and json.loads(alarm)["data"]["code"] == "run_lost"
        assert header["seq"] == 2 and "r1" in json.loads(alarm)["data"]["message"]
        eventually(lambda: one.ask(op="snapshot")[0]["count"] == 0)
        assert server.counters()["runs"] == 0
        assert say(pipeline, {"op": "put", "run": "r1", "n": 2, "count": 1}, body(1))["n"] == 2
        pipeline.close()


def test_a_run_that_says_goodbye_is_over_without_alarm(tmp_path: Path) -> None:
    with place() as address, bus(address, tmp_path / "s.db", ingest=True) as server, client(address) as one:
        handover = Handover(address)
        handover.open(PATIENCE)
        handover.put(caption(0, phase="new").to_json().encode())
        assert handover.close(PATIENCE) == 0
        eventually(lambda: server.counters()["runs"] == 0)
        assert one.ask(op="snapshot")[0]["count"] == 0 and server.store.last_seq == 1
        [stream] = one.ask(op="streams")[0]["streams"]
        assert stream["open"] is False


def test_a_bus_that_lost_confirmed_events_gets_the_rest_as_a_new_run(tmp_path: Path) -> None:
    address = free_address()
    handover = Handover(address, again_after=0.3)
    with bus(address, tmp_path / "a.db", ingest=True):
        handover.open(PATIENCE)
        handover.put(body(0))
        eventually(lambda: handover.confirmed == 1)
        first = handover.run
    with bus(address, tmp_path / "b.db", ingest=True):
        handover.put(body(1))
        assert handover.close(PATIENCE) == 0 and handover.run != first
    assert numbers(tmp_path / "b.db") == ["number 1"]


def test_a_bus_that_is_away_makes_pipelines_wait_when_enough_is_unconfirmed(tmp_path: Path) -> None:
    address, store = free_address(), tmp_path / "s.db"
    server = Bus(address, store)
    handover = Handover(address, again_after=0.5)
    handover.open(PATIENCE)
    try:
        os.kill(server.process.pid, signal.SIGSTOP)
        for number in range(UNCONFIRMED):
            assert handover.put(body(number), timeout=0)
        assert not handover.put(body(UNCONFIRMED), timeout=0.2)
        os.kill(server.process.pid, signal.SIGCONT)
        assert handover.put(body(UNCONFIRMED), timeout=PATIENCE)
        assert handover.close(PATIENCE) == 0
    finally:
        server.kill()
    assert numbers(store) == [f"number {number}" for number in range(UNCONFIRMED + 1)]


def test_no_bus_is_told_in_one_line() -> None:
    handover = Handover(free_address())
    with pytest.raises(BusError, match="start `onlooker bus`") as told:
        handover.open(0.3)
    assert "\n" not in str(told.value)


def test_commands_reach_the_runs_that_have_the_stream(tmp_path: Path) -> None:
    taken: list[tuple[str, Command]] = []

    def obey(name: str) -> Any:
        def take(command: Command, done: Any) -> None:
            taken.append((name, command))
            if command.members.get("text") == "bad":
                done(RequestError("bad_request", "not that"))
            elif command.op == "ask":
                done({"ask": "a1"})
            else:
                done({})

        return take

    with (
        place() as address,
        bus(address, tmp_path / "s.db", ingest=True, commands=True) as server,
        client(address) as one,
    ):
        assert one.ask(op="query.add", text="a dog")[0]["error"]["code"] == "unavailable"
        pipelines = [Handover(address, commands=obey(name)) for name in ("a", "b")]
        for number, pipeline in enumerate(pipelines):
            pipeline.set_streams(frozenset({f"cam{number}"}))
            pipeline.open(PATIENCE)
        eventually(lambda: server.counters()["runs"] == 2)
        reply, _ = one.ask(op="query.add", text="a dog")
        assert (reply["ok"], reply["accepted"]) == (True, 2)
        assert sorted(name for name, _ in taken) == ["a", "b"]
        taken.clear()
        reply, _ = one.ask(op="ask", stream="cam1")
        assert (reply["accepted"], reply["ask"]) == (1, "a1")
        assert taken == [("b", Command("ask", {"stream": "cam1"}))]
        assert one.ask(op="query.add", text="x", stream="nix")[0]["error"]["code"] == "unknown_stream"
        assert one.ask(op="query.add", text="bad", stream="cam0")[0]["error"] == {
            "code": "bad_request",
            "message": "not that",
        }
        assert one.ask(op="stream.add", source="rtsp://h/")[0]["error"]["code"] == "bad_request"  # to which run?
        assert one.ask(op="stream.add", source="rtsp://h/", run=pipelines[0].run)[0]["ok"]
        for pipeline in pipelines:
            pipeline.close(PATIENCE)


def test_the_command_line_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    for sign, code in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
        address = free_address()
        command = [sys.executable, "-m", "onlooker.pipeline.cli.main", "bus", address, "--store", "s.db"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None and address in process.stdout.readline()
        with client(address) as one:
            before = time.time()
            handover = Handover(address)
            handover.open(PATIENCE)
            handover.put(body(0))
            assert handover.close(PATIENCE) == 0
            assert one.ask(op="hello")[0]["seq"] >= 1 and time.time() - before < PATIENCE
        process.send_signal(sign)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code and "Traceback" not in err
