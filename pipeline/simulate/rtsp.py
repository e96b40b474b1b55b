"""The RTSP side of a camera (RFC 2326): who asks for what, in which state, over which transport."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable

from .camera import Camera
from .connection import Connection, Policy
from .messages import Request
from .sdp import TRACK, describe
from .stream import Outlet, RtpStream, TcpOutlet, UdpOutlet, open_udp

__all__ = ["RtspConnection"]

_FOREIGN = ("ANNOUNCE", "RECORD", "REDIRECT")  # methods of the standard that no camera has
_FREE = ("OPTIONS",)  # asked before anybody is refused
_PAIR = re.compile(r"(client_port|interleaved)=(\d{1,5})(?:-(\d{1,5}))?")


class RtspConnection(Connection):
    """One RTSP client with at most one session, which ends with the connection."""

    def __init__(
        self, camera: Camera, policy: Policy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take over an accepted connection."""
        super().__init__(camera, policy, reader, writer)
        self._stream: RtpStream | None = None
        self._session = ""
        self._playing = False
        self._methods: dict[str, Callable[[Request], Awaitable[None]]] = {
            "OPTIONS": self._options,
            "DESCRIBE": self._describe,
            "SETUP": self._setup,
            "PLAY": self._play,
            "PAUSE": self._pause,
            "TEARDOWN": self._teardown,
            "GET_PARAMETER": self._parameter,
            "SET_PARAMETER": self._parameter,
        }

    def alive(self) -> bool:
        """Say whether a client that listens by UDP reported lately."""
        outlet = self._stream.outlet if self._stream else None
        heard = outlet.heard if isinstance(outlet, UdpOutlet) else 0.0
        return time.monotonic() < heard + self.policy.session_timeout

    def gone(self) -> None:
        """End the session."""
        if self._stream:
            self._stream.close()
        self._stream, self._playing = None, False

    async def answer(self, request: Request) -> None:
        """Check what all requests must have, then do what this one asks for."""
        wrong = self._wrong(request)
        if wrong is not None:
            self._reply(request, wrong)
            return
        refusal = self.refusal(request) if request.method not in _FREE else None
        if refusal is not None:
            self._reply(request, *refusal)
            return
        await self._methods[request.method](request)

    def _wrong(self, request: Request) -> int | None:
        """Return the status for a request that no state would make right, None for a sound one."""
        if not request.version.startswith("RTSP/"):
            return 400
        if request.version != self.version:
            return 505
        if not request.headers.get("cseq", "").isdigit():
            return 400
        if request.method not in self._methods:
            return 405 if request.method in _FOREIGN else 501
        if "require" in request.headers:
            return 551
        ours = ("*", "") if request.method in (*_FREE, "GET_PARAMETER", "SET_PARAMETER") else ()
        path = self.policy.path.rstrip("/")
        return None if request.path in (path, f"{path}/{TRACK}", *ours) else 404

    def _reply(self, request: Request, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        extra = {"Allow": ", ".join(self._methods)} if status in (405, 501) else {}
        extra |= {"Unsupported": request.headers["require"]} if status == 551 else {}
        self.respond(status, {"CSeq": request.headers.get("cseq", "0"), **extra, **(headers or {})}, body)

    def _state_error(self, request: Request) -> int | None:
        """Return the status for a request that needs a session and does not name ours."""
        if self._stream is None and "session" not in request.headers:
            return 455
        named = request.headers.get("session", "").partition(";")[0].strip()
        return None if self._stream is not None and named == self._session else 454

    async def _options(self, request: Request) -> None:
        self._reply(request, 200, {"Public": ", ".join(self._methods)})

    async def _describe(self, request: Request) -> None:
        accept = request.headers.get("accept", "*/*")
        if not any(kind in accept for kind in ("application/sdp", "application/*", "*/*")):
            self._reply(request, 406)
            return
        body = describe(self.camera.format, self._host, int(time.time())).encode()
        base = request.uri.partition("?")[0].rstrip("/") + "/"
        self._reply(request, 200, {"Content-Base": base, "Content-Type": "application/sdp"}, body)

    async def _setup(self, request: Request) -> None:
        if self._playing:
            self._reply(request, 455)
            return
        if "session" in request.headers and self._state_error(request):
            self._reply(request, 454)
            return
        try:
            outlet, told = await self._outlet(request.headers.get("transport", ""))
        except OSError:  # no free UDP ports, or no way to the client's
            self._reply(request, 500)
            return
        if outlet is None:
            self._reply(request, 461)
            return
        self.gone()
        self._stream = RtpStream(self.camera, outlet, self.policy.report_interval, self._host)
        self._session = self._session or secrets.token_hex(8)
        self.camera.counters.sessions += 1
        transport = f"{told};ssrc={self._stream.ssrc:08X};mode=play"
        self._reply(request, 200, {"Transport": transport, "Session": self._session_header})

    async def _outlet(self, offers: str) -> tuple[Outlet | None, str]:
        """Open the first transport on offer that we have; returns it with its part of the answer's header."""
        for offer in offers.split(","):
            parts = [part.strip() for part in offer.split(";")]
            pairs = {name: (int(a), int(b or int(a) + 1)) for name, a, b in _PAIR.findall(offer)}
            if "multicast" in parts:
                continue
            if parts[0] == "RTP/AVP/TCP":
                channels = pairs.get("interleaved", (0, 1))
                if max(channels) < 256:
                    told = f"RTP/AVP/TCP;unicast;interleaved={channels[0]}-{channels[1]}"
                    return TcpOutlet(self.writer, channels), told
            elif parts[0] in ("RTP/AVP", "RTP/AVP/UDP") and "client_port" in pairs:
                ports = pairs["client_port"]
                if min(ports) > 0 and max(ports) < 65536:
                    # Always to who asks: a camera that sends elsewhere on request is a weapon.
                    outlet = await open_udp(self._host, self._client, ports)
                    told = f"{parts[0]};unicast;client_port={ports[0]}-{ports[1]}"
                    return outlet, f"{told};server_port={outlet.ports[0]}-{outlet.ports[1]}"
        return None, ""

    async def _play(self, request: Request) -> None:
        error = self._state_error(request)
        if error or self._stream is None:
            self._reply(request, error or 455)
            return
        url = request.uri.partition("?")[0].rstrip("/").removesuffix(f"/{TRACK}") + f"/{TRACK}"
        stamp = self._stream.timestamp(time.monotonic())
        info = {"RTP-Info": f"url={url};seq={self._stream.sequence};rtptime={stamp}"} if self.policy.rtp_info else {}
        self._reply(request, 200, {"Session": self._session_header, "Range": "npt=now-", **info})
        if not self._playing:
            self._playing = True
            self._stream.play()
            how = "UDP" if isinstance(self._stream.outlet, UdpOutlet) else "TCP"
            self.policy.say(f"client {self.peer} plays over {how}")

    async def _pause(self, request: Request) -> None:
        error = self._state_error(request)
        if error is None and self._stream is not None:
            self._stream.pause()
            self._playing = False
        self._reply(request, error or 200, {} if error else {"Session": self._session_header})

    async def _teardown(self, request: Request) -> None:
        error = self._state_error(request)
        if error is None:
            self.gone()
        self._reply(request, error or 200)

    async def _parameter(self, request: Request) -> None:
        """Serve as a sign of life; a body would name a parameter, and there are none."""
        error = self._state_error(request) if "session" in request.headers else None
        self._reply(request, error or (451 if request.body.strip() else 200))

    @property
    def _session_header(self) -> str:
        return f"{self._session};timeout={max(round(self.policy.session_timeout), 1)}"

    @property
    def _host(self) -> str:
        return str(self.writer.get_extra_info("sockname")[0])

    @property
    def _client(self) -> str:
        return str(self.writer.get_extra_info("peername")[0])
