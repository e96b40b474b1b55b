"""What is wrong with a source, in words that a camera's owner understands.

libav answers with error codes, some of which mean many things ("Input/output error"); where one does, the host is asked
once more with plain sockets. Messages name the source by its shown address only.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Literal, get_args

import av

from .address import LiveAddress

__all__ = ["Problem", "ProblemKind", "explain", "network_kind", "open_socket", "problem"]

ProblemKind = Literal[
    "wrong_password",
    "forbidden",
    "not_found",
    "bad_request",
    "server_error",
    "name_not_found",
    "no_route",
    "port_refused",
    "timeout",
    "tls",
    "closed",
    "silent",
    "stalled",
    "not_video",
    "no_video",
    "other_service",
    "unsupported_codec",
    "unsupported_protocol",
    "device_missing",
    "device_busy",
    "no_permission",
    "bad_pattern",
    "file",
    "crashed",
    "other",
]

# The source was reached, and the same question will get the same answer until somebody changes something.
_REFUSALS = {
    "wrong_password",
    "forbidden",
    "not_found",
    "bad_request",
    "no_video",
    "other_service",
    "unsupported_codec",
    "unsupported_protocol",
    "no_permission",
    "bad_pattern",
    "file",
}

_MESSAGES: dict[ProblemKind, str] = {
    "wrong_password": "the source asks for a user name and password{login}, as set in the camera (the account of its "
    "app is often another one)",
    "forbidden": "the source forbids this user to watch; allow live viewing for it in the camera",
    "not_found": "the host answers, but has no such stream; check the path of the address in the camera's manual",
    "bad_request": "the source does not accept the request{transport}; check the address",
    "server_error": "the source answers with an error of its own; it may have too many viewers or be starting, "
    "close other viewers or restart it",
    "name_not_found": "no host of this name is known; check the spelling, or use the camera's IP address",
    "no_route": "there is no way to this host from here; check the IP address, the network and the VPN",
    "port_refused": "the host is there, but nothing answers{port}; check the port, and that {service} is switched on",
    "timeout": "no answer in time; is the camera on, in the same network, and not behind a firewall{transport}?",
    "tls": "the encrypted connection failed; check the camera's certificate and clock, or use the address without "
    "encryption inside a trusted network",
    "closed": "the source closed the connection",
    "silent": "it takes the connection, but does not answer; restart it, and check that this is the port of {service}",
    "stalled": "the connection is open, but no pictures come; see whether the camera shows any in its own app, restart "
    "it{transport}",
    "not_video": "what comes is no video that can be read; {check}",
    "other_service": "something answers{port}, but not a camera's stream; check the port in the camera's settings",
    "no_video": "the source has no picture, at most sound; choose another stream of the camera",
    "unsupported_codec": "the video is compressed in a way that cannot be decoded here{codec}; set the camera to H.264",
    "unsupported_protocol": "{scheme}:// is not in this build of the video library; use another address of the source",
    "device_missing": "there is no such camera on this computer; plug it in, or choose another number",
    "device_busy": "the camera is used by another program; close that program",
    "no_permission": "no permission to use it; on Linux add the user to the group `video`, on macOS allow the camera",
    "bad_pattern": "the test pattern is no valid filter; write for example lavfi:testsrc2=size=640x360:rate=25",
    "file": "the file cannot be read; check the path and its rights",
    "crashed": "the decoder stopped working on what the source sent; it is started anew",
    "other": "cannot be opened{why}; check the address",
}

_CHECKS = {"file": "check the file, or convert it to MP4"}
_CHECK = "check that the address names the stream, not a web page"
_SERVICES = {"rtsp": "RTSP", "http": "its web server", "rtmp": "RTMP"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a source cannot be read now."""

    kind: ProblemKind
    message: str
    """One line: the shown address, what is wrong, what to do."""

    @property
    def refused(self) -> bool:
        """Whether trying again soon is of no use."""
        return self.kind in _REFUSALS

    def to_wire(self) -> dict[str, str]:
        """Return plain values."""
        return {"kind": self.kind, "message": self.message}

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> Problem:
        """Rebuild from `to_wire`; an unknown kind becomes `other`."""
        kind = values["kind"]
        return cls(kind if kind in get_args(ProblemKind) else "other", str(values["message"]))


def problem(address: LiveAddress, kind: ProblemKind, *, codec: str = "", why: str = "") -> Problem:
    """Return the problem of this kind with its message.

    Args:
        address: The source.
        kind: What is wrong.
        codec: Name of the codec, for `unsupported_codec`.
        why: libav's words, for `other`. They must not hold the address.
    """
    transport = ""
    if address.kind == "rtsp" and kind in ("timeout", "bad_request", "stalled"):
        other = "udp" if address.transport == "tcp" else "tcp"
        transport = f" (for some cameras ?transport={other} helps)"
    words = _MESSAGES[kind].format(
        login=" and does not accept these; check both" if address.has_credentials else "; put them into the address",
        port=f" on port {address.port}" if address.port else "",
        service=_SERVICES.get(address.kind, "its stream"),
        scheme=address.scheme,
        check=_CHECKS.get(address.kind, _CHECK),
        transport=transport,
        codec=f" ({codec})" if codec else "",
        why=f" ({why})" if why else "",
    )
    return Problem(kind, f"{address.shown}: {words}")


def explain(
    error: BaseException, address: LiveAddress, *, opened: bool = False, waited: bool = False, patience: float = 3.0
) -> Problem:
    """Say what an error of libav means for this source.

    Args:
        error: What `av.open` or reading raised.
        address: The source.
        opened: The source had been opened.
        waited: It took as long as the time-out. libav's RTSP then speaks of invalid data.
        patience: Seconds for asking the host again, where the error alone does not tell.
    """
    kind = _by_class(error) or _by_number(error, address)
    if kind == "not_video" and waited:
        kind = "timeout"
    if opened:
        kind = kind or "closed"
        if kind in ("port_refused", "not_found"):
            kind = "closed"
    elif kind in (None, "closed", "not_video", "timeout") and address.host and address.kind in ("rtsp", "http", "rtmp"):
        kind = _ask_host(address, patience) or kind
        if kind is None and address.kind == "http" and getattr(error, "errno", None) == errno.EIO:
            kind = "not_video"  # the answer ended before libav knew what it was
    if kind is None or (kind == "not_video" and address.kind == "pattern"):
        kind = {"pattern": "bad_pattern", "file": "file"}.get(address.kind, "other")  # type: ignore[assignment]
    assert kind is not None
    return problem(address, kind, why=getattr(error, "strerror", None) or type(error).__name__)


_CLASSES: list[tuple[type[BaseException], ProblemKind]] = [
    (av.error.HTTPUnauthorizedError, "wrong_password"),
    (av.error.HTTPForbiddenError, "forbidden"),
    (av.error.HTTPNotFoundError, "not_found"),
    (av.error.HTTPClientError, "bad_request"),
    (av.error.HTTPServerError, "server_error"),
    (av.error.DecoderNotFoundError, "unsupported_codec"),
    (av.error.ProtocolNotFoundError, "unsupported_protocol"),
    (av.error.DemuxerNotFoundError, "unsupported_protocol"),
    (av.error.FilterNotFoundError, "bad_pattern"),
    (av.error.InvalidDataError, "not_video"),
    (av.error.ExitError, "timeout"),  # libav's interrupt callback: PyAV's time-out
    (av.error.EOFError, "closed"),
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "port_refused"),
    (ConnectionError, "closed"),
]

_NETWORK: dict[int, ProblemKind] = {errno.EHOSTUNREACH: "no_route", errno.ENETUNREACH: "no_route"}
_NUMBERS: dict[int, ProblemKind] = {
    **_NETWORK,
    errno.EBUSY: "device_busy",
    errno.ENOENT: "device_missing",
    errno.ENODEV: "device_missing",
    errno.ENXIO: "device_missing",
    errno.EACCES: "no_permission",
    errno.EPERM: "no_permission",
}


def _by_class(error: BaseException) -> ProblemKind | None:
    return next((kind for cls, kind in _CLASSES if isinstance(error, cls)), None)


def _by_number(error: BaseException, address: LiveAddress) -> ProblemKind | None:
    kind = _NUMBERS.get(getattr(error, "errno", None) or 0)
    if address.kind == "device" or kind == "no_route":
        return kind
    if kind == "no_permission" and address.host is not None:
        return "no_route"  # a firewall on this computer
    return "not_found" if kind == "device_missing" and address.host is not None else None


def _ask_host(address: LiveAddress, patience: float) -> ProblemKind | None:
    """Find out with plain sockets how far the host can be reached; None where nothing is wrong so far."""
    try:
        open_socket(address, patience).close()
    except (OSError, UnicodeError) as error:
        return network_kind(error)
    return None


def open_socket(address: LiveAddress, patience: float) -> socket.socket:
    """Connect to the source's host and port, with TLS where the scheme asks for it.

    Args:
        address: A source with a host that is reached by TCP.
        patience: Seconds for each of the host's addresses, for each step, and for later reads and writes.

    Raises:
        OSError, UnicodeError: it cannot be reached; see `network_kind`.
    """
    plain = socket.create_connection((address.host or "", address.port or 0), patience)
    if address.scheme not in ("rtsps", "https", "rtmps"):
        return plain
    try:
        # As libav does by default, the certificate is not judged here; only whether TLS works at all.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain, server_hostname=address.host)
    except BaseException:
        plain.close()
        raise


def network_kind(error: BaseException) -> ProblemKind | None:
    """Return what an error of `open_socket`, or of the conversation over it, means; None where it is unknown."""
    if isinstance(error, (socket.gaierror, UnicodeError)):  # the latter: no name could be spelled so
        return "name_not_found"
    if isinstance(error, TimeoutError):  # also one in the middle of TLS
        return "timeout"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionRefusedError):
        return "port_refused"
    if isinstance(error, ConnectionError):
        return "closed"
    return _NETWORK.get(getattr(error, "errno", None) or 0)
