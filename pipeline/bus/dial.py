"""Sockets of a client of the bus, and what libzmq tells of their connections."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..errors import OnlookerError, UsageError
from .keys import ClientKeys
from .protocol import HIGH_WATER, PAGE_BYTES

__all__ = ["BusBroken", "BusUnreachable", "KeyRefused", "Line", "client_keys"]

_PING = 2_000  # ms between two pings
_DEAD = 10_000  # ms without an answer to a ping after which a connection is made anew
_RECONNECT = (100, 3_000)  # ms; the first and the longest pause between two attempts
_FAILURES = 8
"""Handshakes in a row that break off before the other end is taken for no bus, or one with other keys."""
_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)


class BusUnreachable(OnlookerError):
    """There is no bus, or the network is down."""


class KeyRefused(OnlookerError):
    """The bus does not let us in."""


class BusBroken(OnlookerError):
    """What answers does not keep to the protocol."""

    def __init__(self, address: str, error: Exception) -> None:
        """Say where, and what it did."""
        super().__init__(f"what answers at {address} does not speak the protocol of onlooker's bus: {error}.")


def client_keys(keys: str | Path | ClientKeys | None, server_key: str | Path | None) -> ClientKeys | None:
    """The keys of a client from its own ``NAME.key_secret`` and the bus's ``SERVER.key``; None without both.

    Raises:
        UsageError: only one of them is given.
        KeysError: one of them cannot be used.
    """
    if isinstance(keys, ClientKeys):
        return keys
    if keys is None and server_key is None:
        return None
    if keys is None or server_key is None:
        raise UsageError(
            "a bus with keys needs both: your own (keys, NAME.key_secret) and its public one (server key, SERVER.key)."
        )
    return ClientKeys.read(keys, server_key)


def _bad_handshake(address: str, keys: ClientKeys | None) -> KeyRefused:
    """The error where something answers at an address and hangs up at once."""
    if keys is None:
        return KeyRefused(
            f"what answers at {address} is a bus that needs keys, or no bus; for keys add --keys NAME.key_secret "
            "and --server-key SERVER.key."
        )
    return KeyRefused(
        f"what answers at {address} is a bus with another key than --server-key says, one without keys, or no bus."
    )


class Line:
    """One connected socket: sends and receives without waiting, notices when it connects and when it is turned away.

    libzmq makes the connection again for ever, except where the bus refuses the key or is none.
    """

    def __init__(
        self, context: zmq.Context[Any], kind: int, address: str, keys: ClientKeys | None, *, bus: str
    ) -> None:
        """Begin to connect.

        Args:
            context: where the socket lives.
            kind: ``zmq.SUB`` or ``zmq.DEALER``.
            address: of the bus's socket.
            keys: for a bus with keys.
            bus: the address by which the user knows the bus, for messages.

        Raises:
            OnlookerError: the address cannot be one.
        """
        self._bus, self._keys = bus, keys
        self.socket: zmq.Socket[Any] = context.socket(kind)
        self.connected = False
        self._ever = False
        self._failures = 0
        self._configure(ipv6="[" in address)
        self.monitor = self.socket.get_monitor_socket(_WATCHED)
        try:
            self.socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise BusUnreachable(f"cannot connect to {address}: {str(error.strerror).lower()}.") from None

    def _configure(self, *, ipv6: bool) -> None:
        socket = self.socket
        # Not `immediate`: where a connection breaks between two frames of a message, libzmq 4.3 then aborts the process
        # that reads it (fq.cpp, `!_more`).
        socket.linger = 0
        socket.rcvhwm, socket.sndhwm, socket.maxmsgsize = HIGH_WATER, 16, PAGE_BYTES
        socket.heartbeat_ivl, socket.heartbeat_timeout = _PING, _DEAD
        socket.reconnect_ivl, socket.reconnect_ivl_max = _RECONNECT
        socket.tcp_keepalive, socket.ipv6 = 1, ipv6
        if self._keys is not None:
            self._keys.apply(socket)

    def look(self) -> Literal["connected", "gone", None]:
        """What has happened to the connection since the last call.

        Raises:
            KeyRefused: the bus turns us away, or what is there is no bus.
        """
        change: Literal["connected", "gone", None] = None
        while True:
            try:
                told = recv_monitor_message(self.monitor, zmq.NOBLOCK)
            except zmq.Again:
                return change
            match int(told["event"]):
                case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self.connected = self._ever = True
                    self._failures, change = 0, "connected"
                case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    raise KeyRefused(
                        f"the bus at {self._bus} refuses this key; its owner has to put your NAME.key "
                        "into the folder of allowed keys."
                    )
                case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:  # libzmq does not try again after it
                    raise _bad_handshake(self._bus, self._keys)
                case zmq.EVENT_DISCONNECTED:
                    self.connected, change = False, "gone"
                case _:
                    self._failures += 1
                    # A bus that ends or starts may hang up as well, but not time after time.
                    if self._failures >= _FAILURES and not self._ever:
                        raise _bad_handshake(self._bus, self._keys)

    def send(self, frame: bytes) -> bool:
        """Send one frame; False if there is nobody to send it to: it would wait in libzmq, and then come too late."""
        if not self.connected:
            return False
        try:
            self.socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[bytes] | None:
        """A message, or None if there is none now."""
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def close(self) -> None:
        """Close the connection."""
        if hasattr(self, "monitor"):
            self.socket.disable_monitor()
            self.monitor.close(linger=0)
        self.socket.close(linger=0)
