"""A bus, subscribers and a listener without memory, each in a process that can be killed at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import zmq

from onlooker.operators.events import make_event
from onlooker.pipeline.bus.protocol import EVERYTHING, HEARTBEAT, Addresses, Header, loads
from onlooker.pipeline.bus.record import Record
from onlooker.pipeline.bus.server import BusServer
from onlooker.pipeline.bus.store import EventStore
from onlooker.pipeline.bus.subscriber import Subscription

from .stores import everything

STREAMS = 3
ROOT = Path(__file__).parents[2]


class Line(NamedTuple):
    """One event in a subscriber's log."""

    seq: int
    epoch: str
    id: str


class Job:
    """A process that is killed without warning and started again."""

    def __init__(self, *arguments: object) -> None:
        self._command = [sys.executable, "-m", "tests.bus.soaking", *map(str, arguments)]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill(self) -> None:
        assert self.process.poll() is None, "it had ended by itself"
        self.process.kill()
        self.process.communicate()

    def again(self) -> None:
        self.process = self._start()

    def tell(self, line: object) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


class LogFile:
    """The log of a subscriber while it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self._at, self.count = path, 0, 0
        path.touch()

    def grown(self) -> int:
        """Lines so far."""
        with self.path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        self._at += len(new)
        self.count += new.count(b"\n")
        return self.count

    def lines(self) -> list[Line]:
        rows = (line.split() for line in self.path.read_text().splitlines())
        return [Line(int(seq), epoch, name) for _, seq, epoch, name in rows]


def stored_lines(store: Path, stream: str | None = None) -> list[Line]:
    """What the log of a subscriber has to be."""
    return [
        Line(event.header.seq or 0, event.header.epoch, loads(event.body)["id"])
        for event in everything(store)
        if stream in (None, event.stream)
    ]


def record(number: int, run: str) -> Record:
    """Event ``number`` of the soak: every event of a stream is told and then ended."""
    of_stream, stream = divmod(number, STREAMS)
    event_no, rev = divmod(of_stream, 2)
    times = {"t_start": float(event_no), "t_end": event_no + 1.0 if rev else None, "t_seen": event_no + 1.0}
    phase = "end" if rev else "new"
    text = f"number {number}: a red truck stops at the gate, and a dog barks at it for a while"
    names = {"stream": f"cam{stream}", "epoch": 0, "event_no": event_no, "rev": rev}
    return Record.from_event(make_event("caption", phase=phase, text=text, **names, **times), run)


def publish(address: str, store: str, pace: str) -> None:
    """Publish up to the number that stdin tells, again and again, ``pace`` a second.

    It says where it begins, and when it is there.
    """
    with BusServer(address, EventStore(store, max_bytes=4 << 30)) as server:
        number = server.store.last_seq
        print(number, flush=True)
        for line in sys.stdin:
            until = int(line)
            while number < until:
                size = min(1 + number * 7 % 40, until - number)
                server.put([record(number + n, server.store.epoch) for n in range(size)])
                number += size
                time.sleep(size / float(pace))
            server.flush()
            print(number, flush=True)


def subscribe(address: str, log: str, stream: str | None = None) -> None:
    """Write every event with the position behind it, in one line each, and go on where the log ends."""
    path = Path(log)
    whole = path.read_bytes().rpartition(b"\n")[0]
    os.truncate(path, len(whole) + 1 if whole else 0)  # the kill may have cut a line short
    lines = whole.splitlines()
    position = lines[-1].split()[0].decode() if lines else None
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    with Subscription(address, stream=stream, position=position, since="all") as events:
        for event in events:
            assert events.last is not None
            header = events.last.header
            os.write(file, f"{events.position} {header.seq} {header.epoch} {event.id}\n".encode())


class Listener:
    """A subscriber that asks for nothing: it has what comes while it listens. The twin that has to fail."""

    def __init__(self, address: str) -> None:
        self._address = Addresses.of(address).events
        self.heard: list[Line] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.again()

    def again(self) -> None:
        self._socket = self._context.socket(zmq.SUB)
        self._socket.subscribe(EVERYTHING)
        self._socket.connect(self._address)
        self._stopping = False
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stopping:
            if self._socket.poll(20):
                topic, head, body = self._socket.recv_multipart()
                if topic != HEARTBEAT:
                    header = Header.from_bytes(head)
                    self.heard.append(Line(header.seq or 0, header.epoch, loads(body)["id"]))

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        self._socket.close(linger=0)

    def close(self) -> None:
        self.stop()
        self._context.term()


if __name__ == "__main__":
    {"publish": publish, "subscribe": subscribe}[sys.argv[1]](*sys.argv[2:])
