"""JPEG pictures as RTP payloads (RFC 2435): the headers are taken off and said in a few bytes."""

from __future__ import annotations

import struct

from .rtp import MAX_PAYLOAD

__all__ = ["MAX_SIDE", "jpeg_payloads"]

MAX_SIDE = 2040  # pixels; the header has one byte for the side in units of 8
_TYPE_420 = 1  # chroma halved both ways (section 4.1)
_TABLES_FOLLOW = 255  # Q: the tables are in the first packet of each picture (section 4.2)
_START, _QUANTIZATION, _BASELINE, _SCAN = 0xD8, 0xDB, 0xC0, 0xDA


def jpeg_payloads(picture: bytes, limit: int = MAX_PAYLOAD) -> list[bytes]:
    """Cut one baseline 4:2:0 JPEG with the standard Huffman tables into payloads of at most `limit` bytes.

    Raises:
        ValueError: it is no such picture.
    """
    width, height, tables, scan = _dissect(picture)
    if max(width, height) > MAX_SIDE or width % 8 or height % 8:
        raise ValueError(f"{width}x{height} does not fit the header")
    quantization = struct.pack(">BBH", 0, 0, len(tables)) + tables
    payloads: list[bytes] = []
    place = 0
    while place < len(scan):
        head = struct.pack(">I", place) + bytes([_TYPE_420, _TABLES_FOLLOW, width // 8, height // 8])
        if place == 0:
            head += quantization
        part = scan[place : place + limit - len(head)]
        payloads.append(head + part)
        place += len(part)
    return payloads


def _dissect(picture: bytes) -> tuple[int, int, bytes, bytes]:
    """Return width, height, the quantization tables of luma and chroma (64 bytes each), and the scan."""
    tables: dict[int, bytes] = {}
    frame: tuple[int, int, int, int] | None = None
    place = 2
    while place + 4 <= len(picture) and picture[1] == _START:
        marker, length = picture[place + 1], int.from_bytes(picture[place + 2 : place + 4], "big")
        segment = picture[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == _QUANTIZATION:
            for start in range(0, len(segment), 65):
                tables[segment[start]] = segment[start + 1 : start + 65]
        elif marker == _BASELINE:
            frame = _frame(segment)
        elif marker == _SCAN and frame is not None:
            width, height, luma, chroma = frame
            end = picture.rfind(b"\xff\xd9")
            return width, height, tables[luma] + tables[chroma], picture[place : end if end > 0 else None]
    raise ValueError("not a baseline JPEG picture")


def _frame(segment: bytes) -> tuple[int, int, int, int]:
    """Return width, height and the numbers of the tables of luma and chroma out of a SOF0 segment."""
    height, width, components = struct.unpack_from(">HHB", segment, 1)
    if components != 3 or segment[7] != 0x22 or segment[10] != 0x11 or segment[13] != 0x11:
        raise ValueError("not a 4:2:0 JPEG picture")
    return width, height, segment[8], segment[11]
