"""The HTTP side of a camera: JPEG pictures one after the other in one endless response."""

from __future__ import annotations

import asyncio

from .camera import Camera, Picture
from .connection import Connection, Policy
from .messages import Request

__all__ = ["HttpConnection"]

_BOUNDARY = "onlooker-picture"
_MOST_WAITING = 1 << 20  # bytes that a client may leave unread before pictures are skipped


class HttpConnection(Connection):
    """One HTTP client; the response to GET is multipart/x-mixed-replace and ends with the connection."""

    version = "HTTP/1.1"

    def __init__(
        self, camera: Camera, policy: Policy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take over an accepted connection."""
        super().__init__(camera, policy, reader, writer)
        self._playing = False

    async def answer(self, request: Request) -> None:
        """Begin to send pictures."""
        if self._playing:  # nothing can be said between pictures
            return
        refusal = self.refusal(request)
        if refusal is not None:
            self.respond(refusal[0], {"Content-Length": "0", **refusal[1]})
        elif request.method not in ("GET", "HEAD"):
            self.respond(405, {"Allow": "GET, HEAD", "Content-Length": "0"})
        elif request.path != self.policy.path.rstrip("/"):
            self.respond(404, {"Content-Length": "0"})
        else:
            kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
            self.respond(200, {"Content-Type": kind, "Cache-Control": "no-store", "Connection": "close"})
            if request.method == "GET":
                self._playing = True
                self.camera.counters.sessions += 1
                self.policy.say(f"client {self.peer} plays over HTTP")
                self.camera.watch(self)

    def alive(self) -> bool:
        """Say yes while pictures are sent: HTTP clients say nothing after their request."""
        return self._playing

    def gone(self) -> None:
        """Send no more."""
        self.camera.leave(self)

    def deliver(self, picture: Picture) -> None:
        """Send a picture, unless the client has not taken the last ones."""
        counters, effects = self.camera.counters, self.camera.effects
        if self.writer.is_closing():
            return
        if self.writer.transport.get_write_buffer_size() > _MOST_WAITING:
            counters.frames_skipped += 1
            return
        if effects.loses():
            counters.packets_dropped += 1
            return
        data = effects.spoiled(picture.unit.parts[0])
        head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data + b"\r\n")
        counters.frames_sent += 1
        counters.packets_sent += 1

    def end(self) -> None:
        """Write the last boundary."""
        self.writer.write(f"--{_BOUNDARY}--\r\n".encode())
        self.writer.close()
