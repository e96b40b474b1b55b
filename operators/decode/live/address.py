"""Where a live source is: one line of text becomes what libav needs, and a form of it that may be shown.

The line may hold secrets: user and password, tokens in the query or in the path. They stay inside `LiveAddress`, whose
`str` and `repr` are the shown form; they leave it only over the pipe to the decoding process.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote, unquote

from ...errors import OnlookerError

__all__ = ["AddressError", "AddressKind", "LiveAddress", "OpenArguments", "parse_source"]

AddressKind = Literal["rtsp", "http", "rtmp", "srt", "udp", "tcp", "device", "pattern", "file"]
Transport = Literal["tcp", "udp", "udp_multicast", "http"]

_KINDS: dict[str, AddressKind] = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "http": "http",
    "https": "http",
    "rtmp": "rtmp",
    "rtmps": "rtmp",
    "srt": "srt",
    "udp": "udp",
    "tcp": "tcp",
}
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}
_TRANSPORTS: dict[str, Transport] = {"tcp": "tcp", "udp": "udp", "multicast": "udp_multicast", "http": "http"}

# Query parameters whose values are shown; every other value may be a token.
_HARMLESS = {"channel", "subtype", "stream", "streamtype", "profile", "resolution", "fps", "codec", "unicast", "proto"}
_HARMLESS |= {"listen", "localaddr", "pkt_size", "fifo_size", "mode", "latency"}
# Some recorders take the password in the path: /user=admin_password=secret_channel=1_stream=0.sdp
_NAMED_SECRET = re.compile(
    r"((?:user(?:name)?|usr|pass(?:word|wd)?|pwd|psw|token|auth|key|secret|sig(?:nature)?|sid|session)=)"
    r"(.*?)(?=_[a-z]+=|[&;/]|$)",
    re.IGNORECASE,
)
# Others make the path itself the secret: a long run of letters mixed with digits, or a UUID.
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{16,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
    r"(?![A-Za-z0-9])"
)
_MASK = "***"


class AddressError(OnlookerError):
    """The text names no source that can be opened. The message repeats no part of it that may be secret."""


@dataclass(frozen=True, slots=True)
class OpenArguments:
    """What libav is given. Holds the credentials: never log it."""

    file: str = field(repr=False)
    format: str | None
    """libav's input format where it cannot be found by probing, else None."""
    options: dict[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class LiveAddress:
    """One source, made by `parse_source`."""

    kind: AddressKind
    shown: str
    """The address without user, password and tokens: for logs, events and messages."""
    target: str = field(repr=False)
    """URL without user information, or a path, device or filter graph."""
    host: str | None = None
    """Host to reach, None where there is none."""
    port: int | None = None
    transport: Transport = "tcp"
    """How RTSP carries its media."""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return the shown form."""
        return self.shown

    def __repr__(self) -> str:
        """Return the shown form; fields may hold secrets."""
        return f"LiveAddress({self.shown!r})"

    @property
    def scheme(self) -> str:
        """Scheme of a URL in lower case, empty for devices, patterns and files."""
        return self.target.partition("://")[0].lower() if self.host is not None else ""

    @property
    def live(self) -> bool:
        """Whether the source is expected never to end, so that its end means a lost connection."""
        return self.kind not in ("pattern", "file")

    @property
    def has_credentials(self) -> bool:
        """Whether a user name or password was given."""
        return bool(self.user or self.password)

    def open_arguments(self, io_timeout: float = 5.0) -> OpenArguments:
        """Return what to give to libav, with the credentials in the URL, percent-encoded.

        Args:
            io_timeout: Seconds that a single read or write on the network may take.
        """
        options = {"analyzeduration": "3000000", **_options(self, str(round(io_timeout * 1e6)))}
        if self.kind == "device":
            name, target = _device(self.target)
            return OpenArguments(target, name, options)
        if self.kind == "pattern":
            return OpenArguments(self.target, "lavfi", options)
        if self.kind == "file":
            return OpenArguments(f"file:{self.target}", None, options)  # the name may look like a URL
        if not self.has_credentials:
            return OpenArguments(self.target, None, options)
        scheme, _, rest = self.target.partition("://")
        login = quote(self.user or "", safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        return OpenArguments(f"{scheme}://{login}@{rest}", None, options)

    def to_wire(self) -> dict[str, Any]:
        """Return all fields, secrets too, as plain values for the pipe to the decoding process."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> LiveAddress:
        """Rebuild from `to_wire`."""
        return cls(**values)


def parse_source(
    text: str,
    *,
    user: str | None = None,
    password: str | None = None,
    transport: str | None = None,
) -> LiveAddress:
    """Read the address of a live source.

    Args:
        text: A URL (rtsp, rtsps, http, https, rtmp, srt, udp, tcp), `/dev/video0`, `webcam:0` or `webcam:NAME`,
            `lavfi:FILTERS`, `file:PATH` or a path. RTSP URLs may say `?transport=udp` (tcp, udp, multicast, http).
        user: User name, if not in the URL. Needs no escaping.
        password: Password, if not in the URL. Needs no escaping.
        transport: The same as `?transport=`, which it overrides.

    Raises:
        AddressError: it is none of these. The message holds no secret.
    """
    text = text.strip()
    if not text or re.search(r"[\0\r\n]", text):
        raise AddressError("the source is empty or not one line; give a URL, a device or a file")
    head, colon, rest = text.partition(":")
    scheme = head.lower()
    if colon and rest.startswith("//"):
        address = _parse_url(scheme, rest[2:])
    elif colon and scheme in ("webcam", "lavfi", "file"):
        address = _parse_short(scheme, rest)
    elif re.fullmatch(r"/dev/video\d+", text):
        address = LiveAddress("device", text, text)
    else:
        address = _file(text)
    if user is not None or password is not None:
        if address.kind not in ("rtsp", "http", "rtmp"):
            raise AddressError(f"{address.shown}: takes no user and password; leave them out")
        address = replace(address, user=user, password=password)
    if transport is not None:
        address = replace(address, transport=_transport(address, transport))
    return address


def _parse_url(scheme: str, rest: str) -> LiveAddress:
    kind = _KINDS.get(scheme)
    if kind is None:
        known = ", ".join(_KINDS)
        raise AddressError(f"{_safe_scheme(scheme)}:// cannot be read; use one of {known}, webcam:N, lavfi:, file:")
    login, place = _split_login(scheme, rest)
    place, chosen = _take_transport(place) if kind == "rtsp" else (place, None)
    host, port = _split_host(scheme, re.split(r"[/?#]", place, maxsplit=1)[0])
    if not host and kind not in ("udp", "tcp", "srt"):
        raise AddressError(f"{scheme}:// has no host; write {scheme}://HOST/PATH")
    if kind in ("udp", "tcp", "srt") and port is None:
        raise AddressError(f"{scheme}:// needs a port; write {scheme}://HOST:PORT")
    user, colon, password = login.partition(":")
    address = LiveAddress(
        kind=kind,
        shown=f"{scheme}://{_mask(place)}",
        target=f"{scheme}://{place}",
        host=host,
        port=port if port is not None else _PORTS.get(scheme),
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
    )
    return address if chosen is None else replace(address, transport=_transport(address, chosen))


def _split_login(scheme: str, rest: str) -> tuple[str, str]:
    """Cut `user:password@` off; both may hold unescaped characters, as people paste them.

    The login ends at the last @ before the first slash. A password may itself hold a slash; then what stands before
    the slash is no host and port, and the login ends at the last @ of all. What can be read in two ways is refused.
    """
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = "@" in rest[len(place) :]
    if not behind:
        login, _, _ = place.rpartition("@")
        return login, rest[len(login) + 1 :] if "@" in place else rest
    if "@" not in place and (":" not in place or re.match(r"\[.*\]", place)):
        return "", rest
    if "@" not in place and not re.search(r":\d*$", place):
        login, _, place = rest.rpartition("@")
        return login, place
    raise AddressError(
        f"{scheme}:// has an @ behind a slash, which may belong to the password or to the path; "
        "write it as %40, or give user and password apart from the address"
    )


def _split_host(scheme: str, place: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?", place)
    if match is None or (match[2] and int(match[2]) > 65535):
        raise AddressError(f"{scheme}:// has no readable host and port; write {scheme}://HOST:PORT/PATH")
    return match[1].strip("[]"), int(match[2]) if match[2] else None


def _take_transport(place: str) -> tuple[str, str | None]:
    """Cut `transport=` out of the query and leave the rest as it is, byte by byte."""
    base, mark, query = place.partition("?")
    found = None
    kept = []
    for part in query.split("&") if mark else []:
        name, _, value = part.partition("=")
        if name == "transport":
            found = value
        else:
            kept.append(part)
    return (base + ("?" + "&".join(kept) if kept else ""), found) if found is not None else (place, None)


def _transport(address: LiveAddress, text: str) -> Transport:
    if address.kind != "rtsp":
        raise AddressError(f"{address.shown}: a transport can be chosen for rtsp:// only; leave it out")
    if text not in _TRANSPORTS:
        raise AddressError(f"{address.shown}: unknown transport; use one of {', '.join(_TRANSPORTS)}")
    return _TRANSPORTS[text]


def _parse_short(scheme: str, rest: str) -> LiveAddress:
    if scheme == "file":
        return _file(rest)
    if not rest:
        example = "webcam:0" if scheme == "webcam" else "lavfi:testsrc2=size=640x360:rate=25"
        raise AddressError(f"{scheme}: names nothing; write for example {example}")
    return LiveAddress("device" if scheme == "webcam" else "pattern", f"{scheme}:{rest}", rest)


def _file(path: str) -> LiveAddress:
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        name = os.path.basename(path.rstrip("/")) or path
        shown = name if "@" not in name and "=" not in name else "the source"
        raise AddressError(f"{shown}: no such file, and no URL or device either; check the spelling")
    return LiveAddress("file", os.path.basename(path), path)


def _device(target: str) -> tuple[str, str]:
    """Return libav's device format of this system and the name of the device in it."""
    if sys.platform == "darwin":
        return "avfoundation", f"{target}:none"
    if sys.platform == "win32":
        return "dshow", f"video={target}"
    return "v4l2", f"/dev/video{target}" if target.isdecimal() else target


def _options(address: LiveAddress, microseconds: str) -> dict[str, str]:
    """Options of the demuxer and protocol of one kind.

    A playlist or SDP comes from outside, so network sources may open network protocols only, never local files.
    `timeout` and `rw_timeout` are per read or write; `stimeout` of older libav is gone and does nothing.
    """
    match address.kind:
        case "rtsp":
            # With sound in the session libav moves the PTS of the pictures when the first sender report comes.
            chosen = {"rtsp_transport": address.transport, "allowed_media_types": "video", "timeout": microseconds}
            return {**chosen, "protocol_whitelist": "rtsp,rtp,udp,tcp,tls,http,https,srtp,crypto"}
        case "http":
            return {"rw_timeout": microseconds, "protocol_whitelist": "http,https,tcp,tls,crypto,httpproxy,data"}
        case "rtmp":
            nested = "rtmp,rtmps,rtmpt,rtmpts,rtmpe,rtmpte,ffrtmphttp,ffrtmpcrypt,http,https,tcp,tls,crypto,httpproxy"
            return {"rw_timeout": microseconds, "rtmp_live": "live", "protocol_whitelist": nested}
        case "udp":
            chosen = {"timeout": microseconds, "overrun_nonfatal": "1", "buffer_size": "1048576"}
            return {**chosen, "protocol_whitelist": "udp,rtp"}
        case "tcp":
            return {"timeout": microseconds, "protocol_whitelist": "tcp"}
        case "srt":
            return {"protocol_whitelist": "srt"}
        case _:
            return {}


def _mask(place: str) -> str:
    base, mark, query = place.partition("?")
    base = _TOKEN.sub(_MASK, _NAMED_SECRET.sub(rf"\g<1>{_MASK}", base.partition("#")[0]))
    return base + (mark + "&".join(map(_mask_parameter, query.split("&"))) if query else "")


def _mask_parameter(part: str) -> str:
    name, equals, value = part.partition("=")
    if name.lower() in _HARMLESS and re.fullmatch(r"\w{0,12}", value):
        return part
    return name + equals + _MASK if equals else _MASK


def _safe_scheme(scheme: str) -> str:
    return scheme if re.fullmatch(r"[a-z][a-z0-9+.-]{0,15}", scheme) else "this"
