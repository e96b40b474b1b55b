"""Bytes at random on every socket of a bus: it goes on, leaks nothing, and obeys nobody who may not command."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from onlooker.pipeline.bus.keys import ClientKeys, new_keys
from onlooker.pipeline.bus.protocol import Addresses

from .buses import eventually, free_address
from .raw_clients import client, frame, greet, tcp

SERVE = """
import sys, threading
from pathlib import Path
from onlooker.pipeline.bus.keys import ServerKeys
from tests.bus.buses import bus, caption, records
address, store, folder = sys.argv[1:]
keys = ServerKeys.read(Path(folder) / "server.key_secret", Path(folder) / "allowed") if folder else None
def obey(command, done):
    print("obeyed", command, flush=True)
with bus(address, Path(store), keys, ingest=True, commands=obey if keys else False, heartbeat=0.2) as server:
    print("ready", flush=True)
    number = 0
    while not threading.Event().wait(0.02):
        server.put(records([caption(number)]))
        number += 1
"""
WORDS = [
    b"", b"v1/", b"{}", b"[]", b"null", b'{"v":1}', b'{"v":1,"id":"1","op":"hello"}', b'{"v":1,"id":"1","op":"replay"}',
    b'{"v":1,"id":"1","op":"replay","after":{"oldest":true}}', b'{"v":1,"id":"1","op":"search","text":"\\" OR ("}',
    b'{"v":1,"id":"1","op":"query.add","text":"a cat"}', b'{"v":1,"id":"1","op":"stream.remove","stream":"cam1"}',
    b'{"v":1,"op":"put","run":"r","n":1,"count":1}', b'{"v":1,"op":"alive","run":"r","streams":[1]}',
    b'{"v":1,"op":"bye","run":"r"}', b'{"v":1,"op":"done","id":"1","ok":true}', b"\0", b"\1", b"\1v1/", b"\xff" * 9,
]  # fmt: skip


def junk(chance: random.Random) -> bytes:
    """Bytes at random, or words of the protocol with a few bytes changed."""
    if chance.random() < 0.4:
        return chance.randbytes(chance.choice([0, 1, 7, 64, 300, 5000, 70_000]))
    words = bytearray(chance.choice(WORDS))
    for _ in range(chance.choice([0, 0, 1, 3])):
        if words:
            words[chance.randrange(len(words))] = chance.randrange(256)
    return bytes(words)


def over_tcp(address: str, chance: random.Random) -> None:
    """A connection that may begin like ZMTP."""
    with suppress(OSError), tcp(address) as connection:
        connection.settimeout(1)
        if chance.random() < 0.6:
            greet(connection, chance.choice([b"SUB", b"DEALER", b"REQ", b"XSUB", chance.randbytes(5)]))
        for _ in range(chance.randrange(1, 30)):
            data = junk(chance)
            connection.sendall(frame(data, more=chance.random() < 0.3) if chance.random() < 0.7 else data)


def over_zmq(context: zmq.Context[Any], address: str, chance: random.Random, keys: ClientKeys | None) -> None:
    """Messages at random from a socket that is well-behaved below them."""
    with context.socket(chance.choice([zmq.DEALER, zmq.XSUB, zmq.REQ])) as one:
        one.linger, one.sndtimeo = 0, 200
        if keys is not None and chance.random() < 0.7:
            keys.apply(one)
        one.connect(address)
        with suppress(zmq.ZMQError):
            for _ in range(chance.randrange(1, 30)):
                one.send_multipart([junk(chance) for _ in range(chance.choice([1, 1, 1, 2, 3, 50, 400]))])
        time.sleep(0.01)


def fuzz(address: str, seconds: float, keys: ClientKeys | None, seed: int) -> int:
    """Returns how many connections were made."""
    chance, until, count = random.Random(seed), time.monotonic() + seconds, 0
    with zmq.Context() as context:
        while time.monotonic() < until:
            where = chance.choice(Addresses.of(address))
            over_tcp(where, chance)
            over_zmq(context, where, chance, keys)
            count += 2
    return count


def attack(address: str, seconds: float, folder: str, seed: int) -> int:
    """Fuzz from a process that libzmq may abort: the other end matters. Returns how many connections it made."""
    until, count = time.monotonic() + seconds, 0
    while (left := until - time.monotonic()) > 0:
        command = [sys.executable, "-m", "tests.bus.test_fuzz", address, str(left), folder, str(seed + count)]
        done = subprocess.run(command, capture_output=True, text=True)
        count += int(done.stdout or 1)
    return count


def check(tmp_path: Path, seconds: float, *, keyed: bool) -> None:
    folder, own = "", None
    if keyed:
        server_files = new_keys("server", tmp_path)
        public, secret = new_keys("reader", tmp_path, "read")
        (tmp_path / "allowed").mkdir()
        shutil.copy(public, tmp_path / "allowed")
        folder, own = str(tmp_path), ClientKeys.read(secret, server_files[0])
    address = free_address()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, address, str(tmp_path / "s.db"), folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    seen: list[int] = []
    over = threading.Event()
    try:
        watched = psutil.Process(process.pid)
        with client(address, own) as healthy:
            healthy.wait()

            def read() -> None:
                while not over.is_set():
                    with suppress(TimeoutError):
                        seen.append(healthy.events(1, seconds=0.5)[0][1]["seq"])

            reader = threading.Thread(target=read)
            reader.start()
            # The first part warms allocator and caches; the second may not grow any more.
            attack(address, seconds / 3, folder, 1)
            memory, files = watched.memory_info().rss, watched.num_fds()
            assert attack(address, seconds * 2 / 3, folder, 2) > 5
            assert process.poll() is None
            eventually(lambda: watched.num_fds() <= files + 8)
            assert watched.memory_info().rss - memory < 64 << 20
            last = healthy.ask(op="hello")[0]["seq"]
            eventually(lambda: bool(seen) and seen[-1] >= last)
            over.set()
            reader.join()
            own_events = [seq for seq in seen if seq]
            assert own_events == list(range(own_events[0], own_events[-1] + 1))  # served all the time, without a gap
            assert healthy.ask(op="query.add", text="x")[0]["error"]["code"] == "not_allowed"
    finally:
        over.set()
        process.kill()
        out, err = process.communicate()
    assert "obeyed" not in out and "Traceback" not in err and "Assertion" not in err, out + err


@pytest.mark.parametrize("keyed", [False, True])
def test_nonsense_does_no_harm(keyed: bool, tmp_path: Path) -> None:
    check(tmp_path, 4, keyed=keyed)


@pytest.mark.slow
@pytest.mark.parametrize("keyed", [False, True])
def test_a_minute_of_nonsense_does_no_harm(keyed: bool, tmp_path: Path) -> None:
    check(tmp_path, 60, keyed=keyed)


if __name__ == "__main__":
    address_, seconds_, folder_, seed_ = sys.argv[1:]
    keys_ = ClientKeys.read(f"{folder_}/reader.key_secret", f"{folder_}/server.key") if folder_ else None
    print(fuzz(address_, float(seconds_), keys_, int(seed_)))
