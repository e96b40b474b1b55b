"""RTSP (RFC 2326) and HTTP messages as they stand on the wire, within limits that no sane client reaches."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["MAX_LINE", "BadMessage", "Interleaved", "Request", "read_message", "response"]

MAX_LINE = 16_384  # bytes; also the limit of the StreamReader to read from
_MAX_HEADERS = 64
_MAX_BODY = 65_536  # bytes
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    413: "Request Entity Too Large",
    451: "Parameter Not Understood",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "RTSP Version not supported",
    551: "Option not supported",
}


class BadMessage(Exception):
    """A message that cannot be understood; the connection has lost its place and must end."""

    def __init__(self, status: int) -> None:
        """Keep the status to answer."""
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Interleaved:
    """Binary data between messages (RFC 2326 section 10.12)."""

    channel: int
    data: bytes


@dataclass(frozen=True)
class Request:
    """A request; names of headers in lower case."""

    method: str
    uri: str
    version: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path of the URI without a query and without a closing slash; "*" as it is."""
        try:
            return urlsplit(self.uri).path.rstrip("/") if "://" in self.uri else self.uri.partition("?")[0].rstrip("/")
        except ValueError:
            raise BadMessage(400) from None


async def read_message(reader: asyncio.StreamReader) -> Request | Interleaved | None:
    """Read the next message; None at the end of the connection, also in the middle of a message.

    Raises:
        BadMessage: what came is no message, or is too large.
    """
    try:
        first = await reader.readexactly(1)
        if first == b"$":
            channel, size = struct.unpack(">BH", await reader.readexactly(3))
            return Interleaved(channel, await reader.readexactly(size))
        return await _read_request(reader, first)
    except asyncio.IncompleteReadError:
        return None


async def _read_request(reader: asyncio.StreamReader, first: bytes) -> Request:
    line = await _read_line(reader, first)
    for _ in range(_MAX_HEADERS):  # empty lines before a request are to be overlooked
        if line:
            break
        line = await _read_line(reader)
    parts = line.split(" ")
    if len(parts) != 3 or "/" not in parts[2]:
        raise BadMessage(400)
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = await _read_line(reader)
        if not line:
            break
        name, colon, value = line.partition(":")
        if not colon:
            raise BadMessage(400)
        headers[name.strip().lower()] = value.strip()
    else:
        raise BadMessage(413)
    return Request(parts[0], parts[1], parts[2], headers, await _read_body(reader, headers.get("content-length", "0")))


async def _read_line(reader: asyncio.StreamReader, begun: bytes = b"") -> str:
    if begun == b"\n":
        return ""
    try:
        line = begun + await reader.readline()
    except ValueError:  # longer than the reader's limit
        raise BadMessage(413) from None
    if not line.endswith(b"\n"):
        raise asyncio.IncompleteReadError(line, None)
    return line.decode("latin-1").strip("\r\n")


async def _read_body(reader: asyncio.StreamReader, length: str) -> bytes:
    if not length.isascii() or not length.isdigit():
        raise BadMessage(400)
    if len(length) > 9 or int(length) > _MAX_BODY:
        raise BadMessage(413)
    return await reader.readexactly(int(length))


def response(version: str, status: int, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a response; one with a body gets its length."""
    lines = [f"{version} {status} {_REASONS[status]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body
