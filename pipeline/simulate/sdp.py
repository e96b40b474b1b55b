"""What a camera says about its stream before it plays: a session description (RFC 4566)."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from itertools import groupby

from .formats import Format
from .nal import nal_type

__all__ = ["TRACK", "describe", "payload_type"]

TRACK = "trackID=0"
_DYNAMIC, _STATIC_JPEG = 96, 26
_NAMES = ("vps", "sps", "pps")


def payload_type(form: Format) -> int:
    """Return the RTP payload type: JPEG has a number of its own (RFC 3551), the others take a free one."""
    return _STATIC_JPEG if form.codec == "mjpeg" else _DYNAMIC


def describe(form: Format, host: str, number: int) -> str:
    """Return the description of one video stream that starts now; `number` identifies the session."""
    family = "IP6" if ":" in host else "IP4"
    anywhere = "::" if family == "IP6" else "0.0.0.0"
    kind = payload_type(form)
    lines = [
        "v=0",
        f"o=- {number} {number} IN {family} {host}",
        "s=onlooker simulated camera",
        f"c=IN {family} {anywhere}",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        f"m=video 0 RTP/AVP {kind}",
        f"a=framerate:{form.rate:g}",
        *_format_lines(form, kind),
        f"a=control:{TRACK}",
    ]
    return "\r\n".join(lines) + "\r\n"


def _format_lines(form: Format, kind: int) -> list[str]:
    if form.codec == "h264":  # RFC 6184 section 8.2.1
        level = form.parameter_sets[0][1:4].hex()
        sets = _base64(form.parameter_sets)
        values = f"packetization-mode=1;profile-level-id={level};sprop-parameter-sets={sets}"
        return [f"a=rtpmap:{kind} H264/90000", f"a=fmtp:{kind} {values}"]
    if form.codec == "h265":  # RFC 7798 section 7.2.1
        groups = groupby(form.parameter_sets, lambda unit: nal_type("h265", unit))
        values = ";".join(f"sprop-{name}={_base64(units)}" for name, (_, units) in zip(_NAMES, groups, strict=True))
        return [f"a=rtpmap:{kind} H265/90000", f"a=fmtp:{kind} {values}"]
    return [f"a=rtpmap:{kind} JPEG/90000"]


def _base64(units: Iterable[bytes]) -> str:
    return ",".join(base64.b64encode(unit).decode() for unit in units)
