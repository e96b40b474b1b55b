"""``onlooker doctor --source``: how far a camera can be reached, what comes from it, and what to do where it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .finding import Finding

if TYPE_CHECKING:
    from onlooker.operators.decode.live import LiveAddress, Problem, Report
    from onlooker.operators.decode.live.reach import Reach

__all__ = ["look_at_source"]

_ANSWER = 5.0  # seconds for a host to answer
_PATIENCE = 5.0  # seconds without a picture after which the look ends; a reader waits longer
_GOOD_CLOCK = 1.0  # seconds; the way from camera to here is part of what is seen
_UNCOMPRESSED = ("rawvideo", "wrapped_avframe")  # libav's names
_ALL_KEYS = (*_UNCOMPRESSED, "mjpeg")  # every picture stands alone
_LONG_KEYS = 5.0  # seconds between key frames, during which a new viewer sees nothing


def look_at_source(text: str, seconds: float, tell: Callable[[Finding], None]) -> Problem | None:
    """Look at one source, telling each finding as it is made; returns what is wrong with it.

    Args:
        text: The source as the user writes it, with its login.
        seconds: How long to watch.
        tell: Gets every finding. They hold no login.

    Raises:
        AddressError: the text names no source.
    """
    from onlooker.operators.decode.live import LiveOptions, diagnose, parse_source
    from onlooker.operators.decode.live.reach import can_reach, reach

    address = parse_source(text)
    reached: Reach | None = None
    tell(Finding("ok", "source", f"{address.shown}{_how(address)}"))
    if can_reach(address):
        reached = reach(address, _ANSWER)
        for finding in _reached(address, reached):
            tell(finding)
        if reached.problem is not None:
            return reached.problem
    elif address.kind == "device":
        tell(Finding("note", "cameras here", _cameras()))
    report = diagnose(address, seconds, LiveOptions(reconnect_after=_PATIENCE))
    if report.frames or reached is None or (reached.status or 0) < 400:  # else it has been said why none come
        for finding in _seen(address, report, seconds):
            tell(finding)
    return _refined(address, report.problem, reached)


def _refined(address: LiveAddress, found: Problem | None, reached: Reach | None) -> Problem | None:
    """Say better what is wrong, by what the source had answered."""
    from onlooker.operators.decode.live.problems import problem

    if found is None or reached is None:
        return found
    if found.kind == "timeout" and reached.status == 200:
        return problem(address, "stalled")
    videos = [stream.partition(" ")[2] for stream in reached.streams if stream.startswith("video ")]
    if found.kind == "unsupported_codec" and videos:
        return problem(address, "unsupported_codec", codec=" and ".join(videos))
    return found


def _how(address: LiveAddress) -> str:
    if address.kind not in ("rtsp", "http", "rtmp"):
        return {"device": ", a camera on this computer", "file": ", a file", "pattern": ", a test picture"}.get(
            address.kind, ""
        )
    login = "with user name and password" if address.password else "without password"
    return f", {login}" + (f", media by {address.transport.upper()}" if address.kind == "rtsp" else "")


def _cameras() -> str:
    if sys.platform != "linux":
        return "see the system's settings"
    found = sorted(Path("/dev").glob("video*"))
    return ", ".join(f"webcam:{path.name.removeprefix('video')}" for path in found) or "none is plugged in"


def _reached(address: LiveAddress, reached: Reach) -> Iterator[Finding]:
    port = f"port {address.port}"
    if not reached.ips:
        yield Finding("wrong", "host", f"{address.host}: no such name is known")
        return
    if reached.ips != (address.host,):
        yield Finding("ok", "host", f"{address.host} is {', '.join(reached.ips[:4])}")
    if reached.connected is None:
        assert reached.problem is not None
        why = {
            "port_refused": "refused: the host is there, but no program listens",
            "timeout": "no answer: the host is off, elsewhere, or behind a firewall",
            "no_route": "no way there from this computer",
            "tls": "open, but not encrypted as the address says",
        }
        yield Finding("wrong", port, why.get(reached.problem.kind, "cannot be opened"))
        return
    yield Finding("ok", port, f"open at {reached.connected}, after {1000 * (reached.seconds or 0):.0f} ms")
    if address.kind in ("rtsp", "http"):
        yield from _answered(address, reached)


def _answered(address: LiveAddress, reached: Reach) -> Iterator[Finding]:
    if not reached.answer:
        silent = reached.problem is not None and reached.problem.kind == "silent"
        yield Finding("wrong", "answer", "the port is open, but it " + ("stays silent" if silent else "hangs up"))
        return
    by = f", by {reached.server}" if reached.server else ""
    good = reached.problem is None and (reached.status or 0) < 400
    yield Finding("ok" if good else "wrong", "answer", f"{reached.answer!r}{by}")
    if reached.login is not None:
        asked = f"asked for, by {reached.login}"
        if not address.has_credentials:
            yield Finding("wrong", "login", f"{asked}; the address has no user name and password")
        else:
            accepted = reached.status != 401
            yield Finding("ok" if accepted else "wrong", "login", asked + ("; accepted" if accepted else "; refused"))
    elif good:
        yield Finding("ok", "login", "not asked for" + ("; yours is not needed" if address.has_credentials else ""))
    if reached.streams:
        yield Finding("ok", "offers", ", ".join(reached.streams))


def _seen(address: LiveAddress, report: Report, seconds: float) -> Iterator[Finding]:
    if report.codec is None or report.size is None:
        yield Finding("wrong", "pictures", "none came")
        return
    claimed = f", says {report.claimed_rate:.3g} a second" if report.claimed_rate else ""
    codec = "uncompressed" if report.codec in _UNCOMPRESSED else report.codec
    yield Finding("ok", "video", f"{codec} {report.size[0]}x{report.size[1]}{claimed}")
    if report.seconds_to_open is not None and address.live:
        yield Finding("ok", "opening", f"took {report.seconds_to_open:.1f} s")
    rate = f": {report.frame_rate:.3g} a second" if report.frame_rate else ""
    bits = f", {_bits(report.bit_rate)}" if report.bit_rate else ""
    stopped = "" if report.problem is None else ", then no more"
    yield Finding("ok" if report.problem is None else "wrong", "pictures", f"{report.frames} came{rate}{bits}{stopped}")
    if _far(report.claimed_rate, report.frame_rate):
        yield Finding("note", "rate", "not what the source says; onlooker goes by what comes")
    if report.damaged:
        udp = address.transport == "udp" and address.kind == "rtsp"
        help_ = "a network cable or ?transport=tcp helps" if udp else "restart the camera, check the network"
        yield Finding("note", "damage", f"{report.damaged} packets came damaged; {help_}")
    if address.live and report.codec not in _ALL_KEYS:
        yield _keys(report.key_interval, seconds)
    if address.kind == "rtsp":
        yield _clock(report)


def _far(claimed: float | None, measured: float | None) -> bool:
    return bool(claimed and measured and not 0.8 < measured / claimed < 1.25)


def _keys(interval: float | None, seconds: float) -> Finding:
    if interval is None:
        return Finding("note", "key frames", f"fewer than two in {seconds:g} s; set the camera to one every 1 or 2 s")
    if interval > _LONG_KEYS:
        return Finding("note", "key frames", f"every {interval:.1f} s; every 1 or 2 s lets viewers start sooner")
    return Finding("ok", "key frames", f"every {interval:.1f} s")


def _clock(report: Report) -> Finding:
    if report.clock_offset is None:
        told = "told, but not usable so far" if report.sender_reports else "not told (no sender reports)"
        return Finding("note", "camera's clock", f"{told}; event times go by this computer's clock")
    off = abs(report.clock_offset)
    side = "ahead of" if report.clock_offset > 0 else "behind"
    text = f"{_duration(off)} {side} this computer's, the way here included"
    if off <= _GOOD_CLOCK:
        return Finding("ok", "camera's clock", text)
    return Finding("note", "camera's clock", f"{text}; set both by NTP, or event times are off by as much")


def _bits(rate: float) -> str:
    return f"{rate / 1e6:.1f} Mbit/s" if rate >= 1e6 else f"{rate / 1e3:.0f} kbit/s"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
