"""RTP and RTCP packets (RFC 3550), and how H.264 (RFC 6184) and H.265 (RFC 7798) are cut into them."""

from __future__ import annotations

import struct

from .nal import NalCodec, is_parameter_set

__all__ = ["CLOCK_RATE", "MAX_PAYLOAD", "goodbye", "nal_payloads", "rtp_packet", "sender_report"]

CLOCK_RATE = 90_000  # ticks per second of every video payload here
MAX_PAYLOAD = 1400  # bytes; with all headers below the 1500 of Ethernet
_NTP_OF_UNIX = 2_208_988_800  # seconds from 1900 to 1970 (RFC 3550 section 4)
_SENDER_REPORT, _DESCRIPTION, _GOODBYE = 200, 202, 203


def rtp_packet(payload: bytes, *, sequence: int, timestamp: int, ssrc: int, payload_type: int, marker: bool) -> bytes:
    """Put the fixed header (RFC 3550 section 5.1) before a payload."""
    second = payload_type | (0x80 if marker else 0)
    return struct.pack(">BBHII", 0x80, second, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def sender_report(*, ssrc: int, wall: float, timestamp: int, packets: int, octets: int, name: str) -> bytes:
    """Return a compound packet: sender report (section 6.4.1) and CNAME (6.5.1).

    `wall` is Unix time in seconds; it and `timestamp` are the same instant on the sender's two clocks.
    """
    seconds = int(wall // 1)
    fraction = int((wall - seconds) * (1 << 32))
    report = struct.pack(
        ">BBHIIIIII",
        0x80,
        _SENDER_REPORT,
        6,
        ssrc,
        seconds + _NTP_OF_UNIX & 0xFFFFFFFF,
        fraction,
        timestamp & 0xFFFFFFFF,
        packets & 0xFFFFFFFF,
        octets & 0xFFFFFFFF,
    )
    text = name.encode()[:255]
    chunk = struct.pack(">IBB", ssrc, 1, len(text)) + text
    chunk += bytes(4 - len(chunk) % 4)  # at least one zero ends the list of items
    return report + struct.pack(">BBH", 0x81, _DESCRIPTION, len(chunk) // 4) + chunk


def goodbye(ssrc: int) -> bytes:
    """Return the packet that ends a stream (section 6.6)."""
    return struct.pack(">BBHI", 0x81, _GOODBYE, 1, ssrc)


def nal_payloads(codec: NalCodec, units: tuple[bytes, ...], limit: int = MAX_PAYLOAD) -> list[bytes]:
    """Cut the NAL units of one access unit into payloads of at most `limit` bytes, in order.

    Parameter sets travel together (STAP-A, aggregation packet), large units in fragments (FU-A, FU), the rest alone.
    """
    sets = [unit for unit in units if is_parameter_set(codec, unit)]
    together = 2 + sum(2 + len(unit) for unit in sets)
    payloads: list[bytes] = []
    if len(sets) > 1 and together <= limit and list(units[: len(sets)]) == sets:
        payloads.append(_aggregate(codec, sets))
        units = units[len(sets) :]
    for unit in units:
        payloads += [unit] if len(unit) <= limit else _fragments(codec, unit, limit)
    return payloads


def _aggregate(codec: NalCodec, units: list[bytes]) -> bytes:
    """Put several units into one payload: RFC 6184 section 5.7.1, RFC 7798 section 4.4.2."""
    header = bytes([max(unit[0] & 0x60 for unit in units) | 24] if codec == "h264" else [48 << 1, 1])
    return header + b"".join(struct.pack(">H", len(unit)) + unit for unit in units)


def _fragments(codec: NalCodec, unit: bytes, limit: int) -> list[bytes]:
    """Cut one unit: RFC 6184 section 5.8, RFC 7798 section 4.4.3. The unit's own header is not repeated."""
    if codec == "h264":
        head, kind, body = bytes([unit[0] & 0xE0 | 28]), unit[0] & 0x1F, unit[1:]
    else:
        head, kind, body = bytes([unit[0] & 0x81 | 49 << 1, unit[1]]), unit[0] >> 1 & 0x3F, unit[2:]
    step = limit - len(head) - 1
    cuts = [body[place : place + step] for place in range(0, len(body), step)]
    last = len(cuts) - 1
    return [
        head + bytes([kind | (0x80 if number == 0 else 0) | (0x40 if number == last else 0)]) + cut
        for number, cut in enumerate(cuts)
    ]
