"""A bare RTSP client, which sees what libav hides: status codes, sequence numbers, timestamps, reports."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE = 60.0  # seconds; only a hanging server takes longer
TCP = "RTP/AVP/TCP;unicast;interleaved=0-1"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Rtp:
    sequence: int
    timestamp: int
    ssrc: int
    kind: int
    marker: bool
    payload: bytes
    arrival: float


@dataclass
class Report:
    wall: float
    timestamp: int
    packets: int
    octets: int
    arrival: float


class RtspClient:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.socket = socket.create_connection((parts.hostname, parts.port), PATIENCE)
        self._data = b""
        self._cseq = 0
        self.session: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def ask(self, method: str, url: str | None = None, **headers: str) -> Answer:
        self._cseq += 1
        lines = [f"{method} {url or self.url} RTSP/1.0", f"CSeq: {self._cseq}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = self.answer()
        assert answer.headers["cseq"] == str(self._cseq)
        return answer

    def answer(self) -> Answer:
        """Return the next answer; media in between is dropped."""
        while self._need(1) == b"$":
            self._take(4 + struct.unpack(">H", self._need(4)[2:])[0])
        while b"\r\n\r\n" not in self._data:
            self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}
        return Answer(int(first.split()[1]), headers, self._take(int(headers.get("content-length", 0))))

    def setup(self, transport: str = TCP) -> Answer:
        answer = self.ask("SETUP", self.url + "/trackID=0", Transport=transport)
        if answer.status == 200:
            self.session = answer.headers["session"].partition(";")[0]
        return answer

    def play(self) -> Answer:
        assert self.setup().status == 200
        answer = self.ask("PLAY", Session=self.session or "")
        assert answer.status == 200
        return answer

    def packets(self) -> Iterator[Rtp | Report]:
        """Yield what comes; raises EOFError at the end of the connection."""
        while True:
            head = self._take(4)
            assert head[:1] == b"$", head
            data = self._take(struct.unpack(">H", head[2:])[0])
            now = time.time()
            if head[1] == 0:
                yield read_rtp(data, now)
            elif data[1] == 200:
                yield read_report(data, now)

    def rtp(self) -> Iterator[Rtp]:
        return (packet for packet in self.packets() if isinstance(packet, Rtp))

    def reports(self) -> Iterator[Report]:
        return (packet for packet in self.packets() if isinstance(packet, Report))

    def _need(self, size: int) -> bytes:
        while len(self._data) < size:
            self._receive()
        return self._data[:size]

    def _take(self, size: int) -> bytes:
        taken, self._data = self._need(size), self._data[size:]
        return taken

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._data += data


def read_rtp(data: bytes, arrival: float) -> Rtp:
    flags, second, sequence, timestamp, ssrc = struct.unpack_from(">BBHII", data)
    assert flags == 0x80
    return Rtp(sequence, timestamp, ssrc, second & 0x7F, bool(second & 0x80), data[12:], arrival)


def read_report(data: bytes, arrival: float) -> Report:
    """Read a sender report (RFC 3550 section 6.4.1) that a CNAME must follow."""
    length, _, seconds, fraction, timestamp, packets, octets = struct.unpack_from(">HIIIIII", data, 2)
    assert length == 6 and data[29] == 202 and data[36] == 1
    return Report(seconds - 2_208_988_800 + fraction / 2**32, timestamp, packets, octets, arrival)


def wait_for(condition: Any, what: str) -> Any:
    """Call until the result is true; returns it."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")
