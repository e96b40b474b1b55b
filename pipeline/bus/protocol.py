"""Words and forms of the bus protocol, version 1 (docs/PROTOCOL.md), shared by both its ends."""

from __future__ import annotations

import json
import re
import secrets
import time
from typing import Any, NamedTuple

from ..errors import UsageError

__all__ = [
    "BODY_BYTES",
    "DEFAULT_ADDRESS",
    "EVERYTHING",
    "HEARTBEAT",
    "HEARTBEAT_SECONDS",
    "HIGH_WATER",
    "PAGE_BYTES",
    "PAGE_EVENTS",
    "REQUEST_BYTES",
    "VERSION",
    "Addresses",
    "Header",
    "ProtocolError",
    "dumps",
    "loads",
    "new_ulid",
    "stream_topic",
    "topic",
]

VERSION = 1
DEFAULT_ADDRESS = "tcp://127.0.0.1:5571"
EVERYTHING = b"v1/"
"""The subscription to all topics."""
HEARTBEAT = b"v1//heartbeat/"
HEARTBEAT_SECONDS = 1.0
HIGH_WATER = 1000
"""Messages that wait for a slow subscriber before it loses some."""
REQUEST_BYTES = 64 << 10
BODY_BYTES = 1 << 20
PAGE_EVENTS = 256
PAGE_BYTES = 4 << 20

_TCP = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[^:/\[\]]+):(?P<port>[0-9]{1,5})")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class ProtocolError(ValueError):
    """The other end sent what the protocol does not allow."""


class Addresses(NamedTuple):
    """Where the sockets of one bus are."""

    events: str
    requests: str
    ingest: str

    @classmethod
    def of(cls, address: str) -> Addresses:
        """Those of the bus that ``address`` names: ``tcp://HOST:PORT`` or ``ipc://PATH``.

        Raises:
            UsageError: it is neither.
        """
        if address.startswith("ipc://") and len(address) > len("ipc://"):
            return cls(address, f"{address}.requests", f"{address}.ingest")
        found = _TCP.fullmatch(address)
        port = int(found["port"]) if found else 0
        if found is None or not 0 < port < 65534:
            shown = re.sub(r"//[^/@]*@", "//***@", address)
            raise UsageError(f"no address of a bus: {shown!r}; write tcp://HOST:PORT or ipc://PATH.")
        return cls(*(f"tcp://{found['host']}:{port + offset}" for offset in range(3)))

    @property
    def local(self) -> bool:
        """Whether only this machine can reach them."""
        if self.events.startswith("ipc://"):
            return True
        host = self.events.removeprefix("tcp://").rpartition(":")[0]
        return host in ("localhost", "[::1]") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


class Header(NamedTuple):
    """What the bus says of one event; section 2 of the protocol."""

    epoch: str
    seq: int | None
    prev: int
    run: str
    time: float

    def to_bytes(self) -> bytes:
        """Its frame. Epoch and run hold no character that JSON escapes; written by hand, since every event needs it."""
        epoch, seq, prev, run, time = self
        number = "null" if seq is None else seq
        return f'{{"epoch":"{epoch}","seq":{number},"prev":{prev},"run":"{run}","time":{time!r}}}'.encode()

    @classmethod
    def from_bytes(cls, frame: bytes) -> Header:
        """Read a frame.

        Raises:
            ProtocolError: it is none.
        """
        members = loads(frame)
        try:
            seq = members["seq"]
            return cls(
                str(members["epoch"]),
                None if seq is None else int(seq),
                int(members["prev"]),
                str(members["run"]),
                float(members["time"]),
            )
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("a header lacks epoch, seq, prev, run or time") from None


def topic(stream: str, kind: str) -> bytes:
    """Topic of the events of one kind in one stream."""
    return f"v{VERSION}/{stream}/{kind}/".encode("ascii")


def stream_topic(stream: str) -> bytes:
    """The subscription to one stream."""
    return f"v{VERSION}/{stream}/".encode("ascii")


def dumps(members: dict[str, Any]) -> bytes:
    """A frame of JSON."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def loads(frame: bytes) -> dict[str, Any]:
    """Read a frame of JSON.

    Raises:
        ProtocolError: it is no JSON object.
    """
    try:
        members = json.loads(frame.decode())  # looking for other encodings would cost a good part of it
    except (ValueError, RecursionError):
        raise ProtocolError("a frame is no JSON") from None
    if not isinstance(members, dict):
        raise ProtocolError("a frame is no JSON object")
    return members


def new_ulid() -> str:
    """A new ULID: 26 characters that sort by the time they were made, to the millisecond."""
    value = (int(time.time() * 1000) << 80) | int.from_bytes(secrets.token_bytes(10), "big")
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))
