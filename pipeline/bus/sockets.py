"""Sockets of the bus: bound with bounds on everything a peer can do, and a way to wake the thread that polls them."""

from __future__ import annotations

import errno
import socket as plain
from pathlib import Path
from typing import Any

import zmq

from ..errors import OnlookerError, UsageError
from .guard import Guard
from .keys import ServerKeys
from .protocol import Addresses

__all__ = ["BusError", "Wake", "bind", "check_open", "read_message"]

DEAD_AFTER = 30.0
"""Seconds without an answer to pings, or to TCP, after which a connection is closed."""
_HANDSHAKE = 10_000  # ms in which a connection has to say who it is
_BACKLOG = 256


class BusError(OnlookerError):
    """The bus cannot run. The message is one line: what is wrong, and what to do."""


def check_open(addresses: Addresses, keys: ServerKeys | None) -> None:
    """Refuse to serve other machines without keys.

    Raises:
        UsageError: others could connect, and there are no keys.
    """
    if keys is None and not addresses.local:
        raise UsageError(
            f"{addresses.events} can be reached from other machines, so it needs keys: run `onlooker keys new server` "
            "and, for each client, `onlooker keys new NAME --role read`; put the clients' .key files into a folder; "
            "add --keys server.key_secret --allow FOLDER. On tcp://127.0.0.1:PORT none are needed."
        )


def bind(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    keys: ServerKeys | None,
    *,
    largest: int,
    send: int,
    receive: int,
    unfinished: int,
    dead_after: float = DEAD_AFTER,
) -> Guard:
    """Make a socket, bind it and watch over it.

    Args:
        context: where it lives.
        kind: ``zmq.XPUB`` or ``zmq.ROUTER``.
        address: as in ``Addresses``.
        keys: CURVE keys, or None for none.
        largest: bytes that a peer may send in one frame; more ends its connection.
        send: messages that wait for a peer before it loses some.
        receive: messages of a peer that wait for us.
        unfinished: bytes of a peer that are no whole message yet, or wait; more ends its connection.
        dead_after: seconds without a sign of life that end a connection.

    Raises:
        BusError: the address is taken, or not one of this machine.
    """
    socket: zmq.Socket[Any] = context.socket(kind)
    try:
        socket.linger = 0
        socket.sndhwm, socket.rcvhwm, socket.maxmsgsize = send, receive, largest
        socket.backlog, socket.handshake_ivl = _BACKLOG, _HANDSHAKE
        socket.ipv6 = "[" in address
        ms = round(dead_after * 1000)
        socket.heartbeat_ivl, socket.heartbeat_timeout, socket.heartbeat_ttl = ms // 3, ms - ms // 3, ms
        # Pings wait behind what a stalled peer does not read; TCP itself then has to give it up.
        socket.tcp_maxrt = ms
        socket.tcp_keepalive, socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl = 1, max(1, ms // 3000), 5
        if kind == zmq.XPUB:
            socket.xpub_verboser = True  # tells of every subscription, so that they can be counted
        if keys is not None:
            keys.apply(socket)
        guard = Guard(socket, keys, unfinished=unfinished)
    except BaseException:
        socket.close(linger=0)
        raise
    try:
        _check_unix_path(address)
        socket.bind(address)
    except zmq.ZMQError as error:
        guard.close()
        raise BusError(_why(address, error.errno or 0, str(error.strerror))) from None
    except BusError:
        guard.close()
        raise
    return guard


def _check_unix_path(address: str) -> None:
    """Binding takes a socket file away from whoever serves it; ask whether somebody does."""
    path = Path(address.removeprefix("ipc://"))
    if not address.startswith("ipc://") or not path.is_socket():
        return
    with plain.socket(plain.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return  # left behind by one that is gone
    raise BusError(_why(address, errno.EADDRINUSE, ""))


def _why(address: str, number: int, text: str) -> str:
    if number == errno.EADDRINUSE:
        return f"{address} is in use, perhaps by another bus; stop that one, or choose another address."
    if number in (errno.ENODEV, errno.EADDRNOTAVAIL, errno.EINVAL):
        return f"{address} is no address of this machine; serve tcp://127.0.0.1:PORT, or tcp://0.0.0.0:PORT with keys."
    if number == errno.EACCES:
        return f"{address} may not be opened by this user; choose a port above 1023, or a folder that you may write."
    return f"cannot serve {address}: {text.lower()}; choose another address."


def read_message(socket: zmq.Socket[Any], most: int) -> list[zmq.Frame]:
    """Read one message. Of one with more than ``most`` frames, ``most`` + 1 are returned and the others dropped.

    Raises:
        zmq.Again: there is none.
    """
    frames = [socket.recv(zmq.NOBLOCK, copy=False)]
    more = frames[0].more
    while more:
        frame = socket.recv(copy=False)  # all parts of a message come at once
        more = frame.more
        if len(frames) <= most:
            frames.append(frame)
    return frames


class Wake:
    """Lets any thread wake the one that polls ``fileno()``."""

    def __init__(self) -> None:
        """Open a pair of sockets."""
        self._in, self._out = plain.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)

    def fileno(self) -> int:
        """What to poll for input."""
        return self._out.fileno()

    def set(self) -> None:
        """Wake it."""
        try:
            self._in.send(b"\0")
        except OSError:  # it has been woken often enough, or is gone
            return

    def clear(self) -> None:
        """Forget all calls of ``set`` until now."""
        try:
            while len(self._out.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close both ends."""
        self._in.close()
        self._out.close()
