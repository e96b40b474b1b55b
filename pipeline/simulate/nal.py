"""NAL units of H.264 and H.265: taking access units and decoder configurations apart."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Literal

__all__ = ["NalCodec", "is_parameter_set", "nal_type", "parameter_sets", "split", "units_of_extradata"]

NalCodec = Literal["h264", "h265"]

# SPS, PPS (H.264 table 7-1); VPS, SPS, PPS (H.265 table 7-1), in the order in which a decoder needs them.
_PARAMETER_SETS: dict[str, tuple[int, ...]] = {"h264": (7, 8), "h265": (32, 33, 34)}
# Access unit delimiters and filler carry no picture; RTP has its own marker for the end of an access unit.
_IDLE: dict[str, tuple[int, ...]] = {"h264": (9, 12), "h265": (35, 38)}
_START_CODE = re.compile(b"\x00\x00\x01")


def nal_type(codec: NalCodec, unit: bytes) -> int:
    """Return nal_unit_type out of the first byte."""
    return unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F


def is_parameter_set(codec: NalCodec, unit: bytes) -> bool:
    """Say whether a decoder needs this unit before the first picture."""
    return nal_type(codec, unit) in _PARAMETER_SETS[codec]


def parameter_sets(codec: NalCodec, units: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return all parameter sets ordered by kind, () if one kind is missing."""
    wanted = _PARAMETER_SETS[codec]
    found = {kind: [unit for unit in units if nal_type(codec, unit) == kind] for kind in wanted}
    return tuple(unit for kind in wanted for unit in found[kind]) if all(found.values()) else ()


def split(codec: NalCodec, data: bytes, extradata: bytes) -> list[bytes]:
    """Split one access unit into NAL units without start codes or lengths; idle ones are left out.

    MP4 and Matroska put a length before each unit (`extradata` then starts with version 1), other formats start codes.
    """
    size = _length_size(codec, extradata)
    units = _by_length(data, size) if size else _by_start_code(data)
    return [unit for unit in units if unit and nal_type(codec, unit) not in _IDLE[codec]]


def units_of_extradata(codec: NalCodec, extradata: bytes) -> list[bytes]:
    """Return the NAL units in a decoder configuration: avcC, hvcC (ISO/IEC 14496-15) or start codes."""
    if not _length_size(codec, extradata):
        return [unit for unit in _by_start_code(extradata) if unit]
    try:
        return [unit for unit in (_of_avcc if codec == "h264" else _of_hvcc)(extradata) if unit]
    except (IndexError, struct.error):  # cut short
        return []


def _length_size(codec: NalCodec, extradata: bytes) -> int:
    """Bytes of the length before each NAL unit, 0 for start codes."""
    place = 4 if codec == "h264" else 21
    return (extradata[place] & 3) + 1 if len(extradata) > place + 1 and extradata[0] == 1 else 0


def _by_start_code(data: bytes) -> Iterator[bytes]:
    starts = [match.end() for match in _START_CODE.finditer(data)]
    for start, after in zip(starts, [*starts, len(data) + 3][1:], strict=True):
        # The zero byte of a four-byte start code belongs to neither unit, and no unit ends in a zero byte.
        yield data[start : after - 3].rstrip(b"\x00")


def _by_length(data: bytes, size: int) -> Iterator[bytes]:
    place = 0
    while place + size <= len(data):
        length = int.from_bytes(data[place : place + size], "big")
        yield data[place + size : place + size + length]
        place += size + length


def _of_avcc(data: bytes) -> Iterator[bytes]:
    place = 5
    for mask in (0x1F, 0xFF):  # SPS, then PPS
        count, place = data[place] & mask, place + 1
        for _ in range(count):
            (length,) = struct.unpack_from(">H", data, place)
            yield data[place + 2 : place + 2 + length]
            place += 2 + length


def _of_hvcc(data: bytes) -> Iterator[bytes]:
    place = 23
    for _ in range(data[22]):
        (count,) = struct.unpack_from(">H", data, place + 1)
        place += 3
        for _ in range(count):
            (length,) = struct.unpack_from(">H", data, place)
            yield data[place + 2 : place + 2 + length]
            place += 2 + length
