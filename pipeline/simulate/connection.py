"""A client's connection, whatever it speaks: settings that all share, and how it breaks."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .auth import Account
from .camera import Camera
from .messages import BadMessage, Interleaved, Request, read_message, response

__all__ = ["Connection", "Policy"]

_LOOK = 0.05  # seconds between looks at the fault `hang`


@dataclass(frozen=True)
class Policy:
    """How the camera deals with clients."""

    path: str  # begins with a slash
    account: Account | None
    report_interval: float | None  # seconds between sender reports; None: none are sent
    rtp_info: bool  # whether the answer to PLAY tells the first sequence number and time
    session_timeout: float  # seconds without a sign of life
    say: Callable[[str], None]  # where a line for each event goes


class Connection:
    """One client. Subclasses answer its requests."""

    version = "RTSP/1.0"

    def __init__(
        self, camera: Camera, policy: Policy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take over an accepted connection."""
        self.camera, self.policy = camera, policy
        self.reader, self.writer = reader, writer
        self.peer = "{}:{}".format(*(writer.get_extra_info("peername") or ("?", "?"))[:2])

    async def serve(self) -> None:
        """Answer until the client or a fault ends the connection."""
        self.camera.counters.connections += 1
        self.policy.say(f"client {self.peer} connected")
        try:
            await self._serve()
        except OSError:  # the client is gone
            pass
        finally:
            self.gone()
            self.drop()
            self.policy.say(f"client {self.peer} left")

    async def _serve(self) -> None:
        while True:
            try:
                message = await self._next()
                if message is None:
                    return
                if isinstance(message, Request):
                    await self._while_hanging()
                    await self.answer(message)
            except BadMessage as bad:
                self.respond(bad.status)
                await self._drain()
                self.writer.close()
                return
            await self._drain()

    async def _drain(self) -> None:
        """Wait until the client has taken most of what it was sent; TimeoutError where it does not."""
        await asyncio.wait_for(self.writer.drain(), self.policy.session_timeout)

    async def _next(self) -> Request | Interleaved | None:
        """Read the next message; None when the client is gone or gives no sign of life."""
        reading = asyncio.ensure_future(read_message(self.reader))
        try:
            while True:
                done, _ = await asyncio.wait([reading], timeout=self.policy.session_timeout)
                if done:
                    return reading.result()
                if not self.alive():
                    self.policy.say(f"client {self.peer} gives no sign of life")
                    return None
        finally:
            reading.cancel()

    async def _while_hanging(self) -> None:
        while self.camera.effects.active("hang"):
            await asyncio.sleep(_LOOK)

    async def answer(self, request: Request) -> None:
        """Answer one request."""
        raise NotImplementedError

    def alive(self) -> bool:
        """Say whether the client lives, though it sent nothing on this connection for the session's time-out."""
        return False

    def gone(self) -> None:
        """Let go of what the client had; called once."""

    def respond(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Write a response."""
        if not self.writer.is_closing():
            self.writer.write(response(self.version, status, {"Server": "onlooker", **(headers or {})}, body))

    def refusal(self, request: Request) -> tuple[int, dict[str, str]] | None:
        """Return status and headers if the client may not have what it asks for: a fault, or a wrong password."""
        status = self.camera.effects.refusal()
        account = self.policy.account
        if account and status in (None, 401):
            given = request.headers.get("authorization", "")
            if status == 401 or not account.admits(request.method, request.uri, given):
                return 401, {"WWW-Authenticate": account.challenge()}
        if status == 401:
            return 401, {"WWW-Authenticate": Account("", "").challenge()}
        return (status, {}) if status else None

    def drop(self) -> None:
        """Break the connection off, as the end of a process does."""
        self.writer.transport.abort()

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.drop()
