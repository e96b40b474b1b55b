"""Bounds what peers can make a socket hold: libzmq itself bounds neither subscriptions nor messages without end.

A connection that goes too far is cut: its TCP or Unix socket is shut down, and libzmq drops all that belongs to it.
"""

from __future__ import annotations

import os
import resource
import socket as plain
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from .keys import ServerKeys

__all__ = ["Guard", "sender_key"]

_SUBSCRIPTIONS = 65_536
_LONGEST_TOPIC = 200
_TOPIC_BYTES = 4 << 20
_AT_ONCE = 256
_CHECK_EVERY = 1.0
_IDLE_BYTES = 4096
"""Bytes that may come in between two checks without being a message: pings and their answers."""
_RECEIVED = struct.Struct("<128xQ")
"""Up to ``tcpi_bytes_received`` in ``struct tcp_info`` of Linux."""
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


@dataclass(slots=True)
class _Connection:
    endpoint: bytes
    topics: set[bytes] = field(default_factory=set)
    counted: int = 0
    """Bytes received that are accounted for."""
    heard: bool = False
    """Whether a whole message has come since the last check."""
    key: bytes | None = None
    """Public key of its owner, Z85, once a message has come."""


class Guard:
    """A bound socket and a watch over its connections; used by one thread at a time."""

    def __init__(
        self, socket: zmq.Socket[Any], keys: ServerKeys | None, *, unfinished: int, connections: int | None = None
    ) -> None:
        """Begin to watch; before the socket is bound.

        Args:
            socket: an XPUB or ROUTER.
            keys: whose owners may stay; None where there are no keys.
            unfinished: bytes that a peer may have sent without finishing a message, or that wait to be read.
            connections: how many there may be; by default a quarter of the files that the process may have open.
        """
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = connections or min(max(files // 4, 64), 4096)
        self._unfinished = unfinished
        self.socket, self._keys = socket, keys
        self._monitor: zmq.Socket[Any] = socket.get_monitor_socket(_EVENTS)
        self._connections: dict[int, _Connection] = {}
        self._subscriptions = self._topic_bytes = 0
        self._next_check = 0.0
        self.cut = 0
        """Connections that went too far."""

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def close(self, linger: int = 0) -> None:
        """Close the socket; harmless when repeated.

        Args:
            linger: milliseconds for which what was sent may still travel, while the context lives.
        """
        if not self.socket.closed:
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
            self.socket.close(linger=linger)

    def look(self) -> None:
        """Note what connections have come and gone, and cut those that send without end; call it every second."""
        self._note_connections()
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + _CHECK_EVERY
            for fd, connection in list(self._connections.items()):
                if self._is_endless(fd, connection) or self._is_unwelcome(connection):
                    self.end(fd)

    def heard(self, frame: zmq.Frame) -> None:
        """A whole message has come, of which this is a frame."""
        self._sender(frame)

    def end_sender(self, frame: zmq.Frame) -> None:
        """Cut the connection that a frame came from."""
        self.end(_descriptor(frame))

    def end(self, fd: int) -> None:
        """Cut a connection."""
        connection = self._connections.get(fd)
        self._forget(fd)
        if connection is None:
            return
        self.cut += 1
        try:
            found = plain.socket(fileno=os.dup(fd))
        except OSError:  # it is gone
            return
        with found, suppress(OSError):
            # Its number may be another's by now; nothing but a connection of this socket is touched.
            if _is_bound_to(found, connection.endpoint):
                found.shutdown(plain.SHUT_RDWR)

    def read_subscriptions(self) -> None:
        """Read what has come in at the XPUB and count it, at most some hundred messages a call."""
        for _ in range(_AT_ONCE):
            try:
                frame = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            connection = self._sender(frame)
            if connection is None:  # from a connection that is gone, or libzmq tidying up after one
                continue
            data = frame.bytes
            if frame.more or data[:1] not in (b"\0", b"\1") or len(data) > _LONGEST_TOPIC + 1:
                self.end_sender(frame)
            elif data[0]:
                self._subscribed(connection, data[1:])
            else:
                self._unsubscribed(connection, data[1:])

    def _sender(self, frame: zmq.Frame) -> _Connection | None:
        fd = _descriptor(frame)
        if fd >= 0 and fd not in self._connections:
            self._note_connections()  # it came before its message
        connection = self._connections.get(fd)
        if connection is not None:
            connection.heard = True
            if self._keys is not None and connection.key is None:
                connection.key = sender_key(frame)
        return connection

    def _subscribed(self, connection: _Connection, topic: bytes) -> None:
        if topic in connection.topics:
            return
        connection.topics.add(topic)
        self._subscriptions += 1
        self._topic_bytes += len(topic)
        if self._subscriptions > _SUBSCRIPTIONS or self._topic_bytes > _TOPIC_BYTES:
            self.end(max(self._connections, key=lambda fd: len(self._connections[fd].topics)))

    def _unsubscribed(self, connection: _Connection, topic: bytes) -> None:
        if topic in connection.topics:
            connection.topics.remove(topic)
            self._subscriptions -= 1
            self._topic_bytes -= len(topic)

    def _forget(self, fd: int) -> None:
        connection = self._connections.pop(fd, None)
        if connection is not None:
            self._subscriptions -= len(connection.topics)
            self._topic_bytes -= sum(map(len, connection.topics))

    def _note_connections(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            fd = int(event["value"])
            self._forget(fd)
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._connections[fd] = _Connection(event["endpoint"])
                if len(self._connections) > self._most:
                    self.end(fd)

    def _is_unwelcome(self, connection: _Connection) -> bool:
        """Whether its key is allowed no more."""
        key = connection.key
        return self._keys is not None and key is not None and self._keys.allowed.access(key) is None

    def _is_endless(self, fd: int, connection: _Connection) -> bool:
        """Whether more has come in than whole messages account for."""
        received = _bytes_received(fd)
        if received is None:
            return False
        if connection.heard or received < connection.counted:
            connection.counted, connection.heard = received, False
        else:
            connection.counted = min(connection.counted + _IDLE_BYTES, received)
        return received - connection.counted > self._unfinished


def sender_key(frame: zmq.Frame) -> bytes | None:
    """Public key (Z85) of whoever sent a frame; None without keys."""
    try:
        return str(frame.get("User-Id")).encode()
    except zmq.ZMQError:
        return None


def _descriptor(frame: zmq.Frame) -> int:
    """File descriptor of the connection that a frame came from; -1 where it is not known."""
    try:
        return int(frame.get("__fd"))
    except zmq.ZMQError:
        return -1


def _is_bound_to(connection: plain.socket, endpoint: bytes) -> bool:
    name = connection.getsockname()
    if isinstance(name, tuple):
        return endpoint.rpartition(b":")[2] == str(name[1]).encode()
    return endpoint == b"ipc://" + os.fsencode(name)


def _bytes_received(fd: int) -> int | None:
    """What a TCP connection has received since it began; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        with plain.socket(fileno=os.dup(fd)) as connection:
            told = connection.getsockopt(plain.IPPROTO_TCP, plain.TCP_INFO, _RECEIVED.size)
    except OSError:  # it is gone, or no TCP
        return None
    return int(_RECEIVED.unpack(told)[0]) if len(told) == _RECEIVED.size else None
