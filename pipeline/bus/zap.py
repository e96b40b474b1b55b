"""Lets clients of the bus in or turns them away, by their keys (ZAP, RFC 27)."""

from __future__ import annotations

import threading
from typing import Any

import zmq
from zmq.utils import z85

from .keys import ZAP_DOMAIN, AllowList

__all__ = ["Doorkeeper"]

_ENDPOINT = "inproc://zeromq.zap.01"
_STOP = "inproc://stop-zap"


class Doorkeeper:
    """Answers the handshakes of all sockets of one ZMQ context, in a thread of its own: they wait for it.

    The sockets then know the key of every message, as its ``User-Id``.
    """

    def __init__(self, context: zmq.Context[Any], allowed: AllowList) -> None:
        """Begin to answer; before any socket is bound."""
        self._allowed = allowed
        self._refused = 0
        self._questions: zmq.Socket[Any] = context.socket(zmq.ROUTER)
        self._questions.linger = 0
        self._questions.bind(_ENDPOINT)
        self._stop: zmq.Socket[Any] = context.socket(zmq.PAIR)
        self._stop.bind(_STOP)
        self._stopping: zmq.Socket[Any] = context.socket(zmq.PAIR)
        self._stopping.connect(_STOP)
        self._thread = threading.Thread(target=self._run, name="onlooker-bus-keys", daemon=True)
        self._thread.start()

    @property
    def refused(self) -> int:
        """Handshakes with keys that are not allowed."""
        return self._refused

    def close(self) -> None:
        """Stop; the sockets must be closed by now."""
        self._stop.send(b"")
        self._thread.join()
        for socket in (self._questions, self._stop, self._stopping):
            socket.close(linger=0)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._questions, zmq.POLLIN)
        poller.register(self._stopping, zmq.POLLIN)
        while self._stopping not in (ready := dict(poller.poll())):
            if self._questions in ready:
                self._answer(self._questions.recv_multipart())

    def _answer(self, frames: list[bytes]) -> None:
        # peer, empty, version, request id, domain, address, identity, mechanism, credentials ...
        user = self._user(frames[4], frames[7], frames[8:])
        self._refused += user is None
        status = (b"400", b"key not allowed", b"") if user is None else (b"200", b"", user)
        self._questions.send_multipart([*frames[:2], b"1.0", frames[3], *status, b""])

    def _user(self, domain: bytes, mechanism: bytes, credentials: list[bytes]) -> bytes | None:
        """The key of whoever may come in, as Z85."""
        if domain != ZAP_DOMAIN or mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != 32:
            return None
        key = z85.encode(credentials[0])
        return None if self._allowed.access(key) is None else key
