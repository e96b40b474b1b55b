"""Clients of the bus that speak ZMQ and JSON alone, and some that do not even do that properly."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import zmq

from onlooker.pipeline.bus.keys import ClientKeys
from onlooker.pipeline.bus.protocol import Addresses

PATIENCE = 60.0


class RawClient:
    """A SUB and a DEALER."""

    def __init__(self, address: str, keys: ClientKeys | None = None, topics: tuple[bytes, ...] = (b"v1/",)) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        where = Addresses.of(address)
        self.sub: zmq.Socket[Any] = self._context.socket(zmq.SUB)
        self.dealer: zmq.Socket[Any] = self._context.socket(zmq.DEALER)
        for one in (self.sub, self.dealer):
            one.linger = 0
            if keys is not None:
                keys.apply(one)
        for topic in topics:
            self.sub.subscribe(topic)
        self.sub.connect(where.events)
        self.dealer.connect(where.requests)
        self._count = 0

    def send(self, **members: Any) -> str:
        self._count += 1
        with contextlib.suppress(zmq.Again):  # a client whose key was refused has nobody to send to
            self.dealer.send(json.dumps({"v": 1, "id": str(self._count), **members}).encode(), zmq.NOBLOCK)
        return str(self._count)

    def ask(self, *, seconds: float = PATIENCE, **members: Any) -> tuple[dict[str, Any], list[bytes]]:
        """The frame of words of the reply, and the frames behind it."""
        number = self.send(**members)
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.dealer.poll(max(0, (until - time.monotonic()) * 1000)):
            words, *rest = self.dealer.recv_multipart()
            reply: dict[str, Any] = json.loads(words)
            if reply["id"] == number:
                return reply, rest
        raise TimeoutError("no reply")

    def events(self, count: int, seconds: float = PATIENCE) -> list[tuple[bytes, dict[str, Any], bytes]]:
        """The next events, without heartbeats."""
        found: list[tuple[bytes, dict[str, Any], bytes]] = []
        until = time.monotonic() + seconds
        while len(found) < count:
            message = self.next(until - time.monotonic())
            if message[0] != b"v1//heartbeat/":
                found.append(message)
        return found

    def next(self, seconds: float = PATIENCE) -> tuple[bytes, dict[str, Any], bytes]:
        if not self.sub.poll(max(0, seconds * 1000)):
            raise TimeoutError("no message")
        topic, header, body = self.sub.recv_multipart()
        return topic, json.loads(header), body

    def wait(self) -> None:
        """Until what is subscribed to arrives."""
        self.next()

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextlib.contextmanager
def client(address: str, keys: ClientKeys | None = None, topics: tuple[bytes, ...] = (b"v1/",)) -> Iterator[RawClient]:
    made = RawClient(address, keys, topics)
    try:
        yield made
    finally:
        made.close()


def tcp(address: str) -> socket.socket:
    """A plain connection to a ``tcp://`` address."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def greet(connection: socket.socket, kind: bytes) -> None:
    """The handshake of ZMTP 3.0 with the mechanism NULL (RFC 23)."""
    connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\0" + bytes(31))
    received = 0
    while received < 64:
        got = connection.recv(64 - received)
        if not got:
            raise ConnectionError("the bus has hung up")
        received += len(got)
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    connection.sendall(b"\x04" + bytes([len(ready)]) + ready)


def frame(data: bytes, *, more: bool = False) -> bytes:
    """One frame of ZMTP."""
    return bytes([2 | more]) + struct.pack(">Q", len(data)) + data
