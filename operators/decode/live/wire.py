"""Messages between a reader and its decoding process: a JSON header and raw bytes over a Unix socket.

JSON and not pickle: the decoder parses what strangers send, so nothing that comes from it may run code here.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

__all__ = ["Channel", "ChannelClosed", "Header"]

Header = dict[str, Any]
_PREFIX = struct.Struct(">II")  # bytes of the header, bytes of the body
# Larger than any picture: 8K RGB with its preview is 100 MB. A bound against a decoder gone wild.
_LARGEST = 1 << 28


class ChannelClosed(Exception):
    """The other side is gone."""


def _header(text: bytearray) -> Header:
    """Read a header; a peer that sends what is none has gone wild and counts as gone."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChannelClosed from error
    if not isinstance(header, dict):
        raise ChannelClosed
    return header


class Channel:
    """One end of a socket pair. One thread may send while another one receives."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected stream socket."""
        self._sock = sock
        self._sending = threading.Lock()
        self._parts: list[bytearray] = []
        self._target, self._filled = bytearray(_PREFIX.size), 0

    def send(self, header: Header, *bodies: bytes | bytearray | memoryview) -> None:
        """Send one message; on a non-blocking socket a peer that reads nothing counts as gone.

        Raises:
            ChannelClosed: the other side is gone.
        """
        text = json.dumps(header, separators=(",", ":")).encode()
        try:
            with self._sending:
                self._sock.sendall(_PREFIX.pack(len(text), sum(len(body) for body in bodies)) + text)
                for body in bodies:
                    self._sock.sendall(body)
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, timeout: float | None = None, also: Sequence[Any] = ()) -> tuple[Header, bytearray] | None:
        """Return the next message, or None when `timeout` seconds have passed or one of `also` is ready to be read.

        A message that has come in part is kept and completed by a later call.

        Raises:
            ChannelClosed: the other side is gone; all that it had sent has been received.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait([self._sock, *also], left)
            if self._sock in ready:
                message = self._read()
                if message is not None:
                    return message
            if any(other in ready for other in also) or (deadline is not None and time.monotonic() >= deadline):
                return None

    def _read(self) -> tuple[Header, bytearray] | None:
        """Read what is there; the message if it is complete."""
        try:
            count = self._sock.recv_into(memoryview(self._target)[self._filled :])
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed from error
        if count == 0:
            raise ChannelClosed
        self._filled += count
        while self._filled == len(self._target):
            self._parts.append(self._target)
            if len(self._parts) == 3:
                _, header, body = self._parts
                self._parts, self._target, self._filled = [], bytearray(_PREFIX.size), 0
                return _header(header), body
            lengths = _PREFIX.unpack(self._parts[0])
            if sum(lengths) > _LARGEST:
                raise ChannelClosed
            self._target, self._filled = bytearray(lengths[len(self._parts) - 1]), 0
        return None

    def fileno(self) -> int:
        """Descriptor of the socket, -1 when closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        self._sock.close()
