"""How far a network source can be reached: its name, its port, and what it answers, before any video is asked for.

Plain sockets and a few lines of RTSP or HTTP, because libav's error codes do not tell these steps apart.
"""

from __future__ import annotations

import base64
import re
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

from .address import LiveAddress
from .digest import digest_fields, digest_response
from .problems import Problem, ProblemKind, network_kind, open_socket, problem

__all__ = ["Reach", "can_reach", "reach"]

_MOST_HEAD, _MOST_BODY = 1 << 14, 1 << 16  # bytes of an answer that are read
_MOST_SHOWN = 60  # characters of a server's words that are shown
_STATUS = re.compile(r"(RTSP|HTTP)/\d\.\d (\d{3})\b")
# Payload types with a fixed meaning (RFC 3551 section 6) that cameras use.
_STATIC = {0: "PCMU", 8: "PCMA", 14: "MPA", 26: "JPEG", 32: "MPV", 33: "MP2T"}


@dataclass(frozen=True, slots=True)
class Reach:
    """What was found, in the order in which it was looked for; the first `problem` ends it.

    Words of the server are cut to a short line of printable characters.
    """

    problem: Problem | None = None
    ips: tuple[str, ...] = ()
    """What the host's name stands for."""
    connected: str | None = None
    """The one of these that took the connection."""
    seconds: float | None = None
    """How long connecting took."""
    answer: str | None = None
    """First line of the server's answer: `RTSP/1.0 200 OK`. None for protocols in which nothing is asked here."""
    server: str | None = None
    """What the server calls itself."""
    login: str | None = None
    """How it asks for user and password: `Digest`, `Basic`; None where it does not."""
    status: int | None = None
    """Status of the answer, the second one where a login was asked for and given."""
    streams: tuple[str, ...] = ()
    """What an RTSP source offers: `video H264`, `audio PCMA`."""


@dataclass(frozen=True, slots=True)
class _Answer:
    first: str
    headers: list[tuple[str, str]]
    body: str

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def status(self, protocol: str) -> int | None:
        match = _STATUS.match(self.first)
        return int(match[2]) if match and match[1] == protocol else None


def can_reach(address: LiveAddress) -> bool:
    """Say whether there is a host to connect to: not for devices, files, patterns and what comes by UDP."""
    return bool(address.host) and address.kind in ("rtsp", "http", "rtmp", "tcp")


def reach(address: LiveAddress, patience: float = 5.0) -> Reach:
    """Look for the source's host, connect, and ask for the stream's description.

    Args:
        address: A source for which `can_reach` is true.
        patience: Seconds for connecting to each of the host's addresses, and for each answer. A resolver that does
            not answer has a time-out of its own.
    """
    found = Reach()
    try:
        told = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        found = replace(found, ips=tuple(dict.fromkeys(str(entry[4][0]) for entry in told)))
        began = time.monotonic()
        with open_socket(address, patience) as sock:
            seconds = time.monotonic() - began
            found = replace(found, connected=str(sock.getpeername()[0]), seconds=seconds)
            return _converse(address, sock, patience, found) if address.kind in ("rtsp", "http") else found
    except (OSError, UnicodeError) as error:
        kind: ProblemKind = network_kind(error) or "other"
        if kind == "timeout" and found.connected is not None:
            kind = "silent"
        return replace(found, problem=problem(address, kind, why=getattr(error, "strerror", None) or ""))


def _converse(address: LiveAddress, sock: socket.socket, patience: float, found: Reach) -> Reach:
    protocol = "RTSP" if address.kind == "rtsp" else "HTTP"
    answer = _ask(address, sock, patience, 1)
    status = answer.status(protocol)
    shown = replace(found, answer=_shown(answer.first), server=_shown(answer.header("server") or "") or None)
    if status is None:
        kind: ProblemKind = "other_service" if answer.first else "closed"
        return replace(shown, problem=problem(address, kind))
    if status == 401:
        shown = replace(shown, login=" or ".join(name.capitalize() for name in _challenges(answer)) or "a login")
        header = _authorization(address, answer)
        if header is not None:
            with _same_or_new(address, sock, patience) as again:
                answer = _ask(address, again, patience, 2, header)
            shown = replace(shown, answer=_shown(answer.first))
    streams = _streams(answer.body) if protocol == "RTSP" else ()
    return replace(shown, status=answer.status(protocol), streams=streams)


def _same_or_new(address: LiveAddress, sock: socket.socket, patience: float) -> socket.socket:
    """Return where to ask again: RTSP goes on, as its nonces may belong to a connection; we end every HTTP one."""
    return sock if address.kind == "rtsp" else open_socket(address, patience)


def _ask(address: LiveAddress, sock: socket.socket, patience: float, number: int, login: str = "") -> _Answer:
    """Ask for the stream's description (RFC 2326 section 10.2), or by HTTP for the stream."""
    if address.kind == "rtsp":
        lines = [f"DESCRIBE {_target(address)} RTSP/1.0", f"CSeq: {number}", "Accept: application/sdp"]
    else:
        host = f"[{address.host}]" if ":" in str(address.host) else address.host
        lines = [f"GET {_path(address)} HTTP/1.1", f"Host: {host}:{address.port}", "Accept: */*", "Connection: close"]
    lines += ["User-Agent: onlooker", *([f"Authorization: {login}"] if login else []), "", ""]
    sock.sendall("\r\n".join(lines).encode())
    return _receive(sock, time.monotonic() + patience, body=address.kind == "rtsp")


def _receive(sock: socket.socket, deadline: float, *, body: bool) -> _Answer:
    """Read an answer; of what is none, the first line is enough.

    Raises:
        OSError: nothing at all came in time, or the connection broke before.
    """

    def head_is_here(data: bytes) -> bool:
        foreign = b"\n" in data and not _STATUS.match(data.decode("latin-1"))
        return foreign or b"\r\n\r\n" in data or len(data) > _MOST_HEAD

    data = _read(sock, deadline, b"", head_is_here)
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").splitlines() or [""]
    pairs = (line.partition(":") for line in lines)
    headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    length = next((value for name, value in headers if name == "content-length"), "")
    if body and length.isascii() and length.isdigit():
        wanted = min(int(length), _MOST_BODY) if len(length) < 9 else _MOST_BODY
        rest = _read(sock, deadline, rest, lambda data: len(data) >= wanted)[:wanted]
    return _Answer(first, headers, rest.decode("utf-8", "replace") if body else "")


def _read(sock: socket.socket, deadline: float, data: bytes, done: Callable[[bytes], bool]) -> bytes:
    """Read on until `done`, the end or the deadline; raises OSError only where nothing came at all."""
    while not done(data):
        try:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            more = sock.recv(4096)
        except OSError:
            if not data:
                raise
            break
        if not more:
            break
        data += more
    return data


def _challenges(answer: _Answer) -> dict[str, dict[str, str]]:
    """Parameters of each challenge by its scheme in lower case (RFC 2617 section 1.2)."""
    found = {}
    for name, value in answer.headers:
        if name == "www-authenticate":
            scheme, _, rest = value.partition(" ")
            found[scheme.lower()] = digest_fields(rest)
    return found


def _authorization(address: LiveAddress, answer: _Answer) -> str | None:
    """Return the header that answers a 401, None where no login is given or no challenge is understood."""
    if not address.has_credentials:
        return None
    user, password, challenges = address.user or "", address.password or "", _challenges(answer)
    given = challenges.get("digest")
    if given is not None and given.get("algorithm", "MD5").upper() == "MD5":
        method, uri = ("DESCRIBE", _target(address)) if address.kind == "rtsp" else ("GET", _path(address))
        realm, nonce = given.get("realm", ""), given.get("nonce", "")
        offered = [part.strip() for part in given.get("qop", "").split(",")]
        quality = ("00000001", secrets.token_hex(8), "auth") if "auth" in offered else None
        proof = digest_response(user, realm, password, method, uri, nonce, quality=quality)
        fields = {"username": user, "realm": realm, "nonce": nonce, "uri": uri, "response": proof}
        fields |= {"opaque": given["opaque"]} if "opaque" in given else {}
        text = ", ".join(f'{name}="{value}"' for name, value in fields.items())
        return f"Digest {text}" + (', nc={}, cnonce="{}", qop={}'.format(*quality) if quality else "")
    if "basic" in challenges:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return None


def _streams(description: str) -> tuple[str, ...]:
    """Kinds and codecs of the media in a session description (RFC 4566): `video H264`."""
    found = []
    for part in re.split(r"^m=", description, flags=re.MULTILINE)[1:]:
        words = [*part.split(maxsplit=4), "", "", "", ""]
        kind, number = words[0], words[3]
        named = re.search(rf"^a=rtpmap:{re.escape(number)} ([^/\s]+)", part, re.MULTILINE)
        static = _STATIC.get(int(number)) if number.isascii() and number.isdigit() else None
        found.append(_shown(f"{kind} {named[1] if named else static or 'of type ' + number}"))
    return tuple(found[:8])


def _target(address: LiveAddress) -> str:
    """The URL as it stands in a request, without login."""
    return quote(address.target.partition("#")[0], safe="%/:=&?~+!$,;'@()*[]|")


def _path(address: LiveAddress) -> str:
    place = _target(address).partition("://")[2]
    return "/" + place.partition("/")[2] if "/" in place else "/"


def _shown(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:_MOST_SHOWN].strip()
