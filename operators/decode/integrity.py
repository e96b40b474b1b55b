"""Does a local video file hold all the bytes it declares?

libav reports a plain end of file for a recording that breaks off, so the answer is read from the outermost
structure of the container. Formats without a declared length answer "as far as one can see, yes".
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

_TS_SYNC = 0x47
# Packet size -> position of the sync byte (plain TS, M2TS with a 4-byte time code, TS with Reed-Solomon bytes).
_TS_PACKETS = {188: 0, 192: 4, 204: 0}
_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT = b"\x18\x53\x80\x67"


def is_cut_short(path: str | Path, format_name: str) -> bool:
    """Return True where the file of libav's `format_name` ends before the bytes its container declares.

    Raises OSError where the file cannot be read. A transport stream cut exactly between two packets, a fragmented
    MP4 cut between two fragments and a Matroska file written without a length look complete.
    """
    names = set(format_name.split(","))
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if "mp4" in names:
            return _iso_media_cut(file, size)
        if "matroska" in names:
            return _matroska_cut(file, size)
        if "mpegts" in names:
            return _transport_cut(file, size)
        if names & {"avi", "wav"}:
            return _riff_cut(file, size)
    return False


def has_index_box(path: str | Path) -> bool | None:
    """Return whether an ISO media file (MP4, MOV) holds its index `moov`; None where it is no such file."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        kinds = [kind for kind, _ in _iso_boxes(file, size)]
    return b"moov" in kinds if kinds and kinds[0] in {b"ftyp", b"moov", b"mdat", b"wide", b"free"} else None


def _iso_boxes(file: BinaryIO, size: int) -> list[tuple[bytes, int]]:
    """Kind and end position of every top-level box; the last end may lie past the file."""
    boxes: list[tuple[bytes, int]] = []
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if not kind.isalnum():
            break  # padding or a foreign trailer after the last box
        if length == 1:
            extended = file.read(8)
            length = struct.unpack(">Q", extended)[0] if len(extended) == 8 else size + 1
        elif length == 0:
            length = size - position
        if length < 8:
            break
        position += length
        boxes.append((kind, position))
    return boxes


def _iso_media_cut(file: BinaryIO, size: int) -> bool:
    boxes = _iso_boxes(file, size)
    return bool(boxes) and boxes[-1][1] > size


def _matroska_cut(file: BinaryIO, size: int) -> bool:
    if file.read(4) != _EBML_HEADER:
        return False
    header = _ebml_length(file)
    if header is None:
        return False
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _EBML_SEGMENT:
        return False
    segment = _ebml_length(file)
    return segment is not None and file.tell() + segment > size


def _ebml_length(file: BinaryIO) -> int | None:
    """Read an EBML length: the leading zero bits of the first byte say how many bytes follow; all ones = unknown."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    value = int.from_bytes(bytes([first[0] & ((1 << (7 - more)) - 1)]) + rest, "big")
    unknown = (1 << (7 * (more + 1))) - 1
    return None if len(rest) < more or value == unknown else value


def _transport_cut(file: BinaryIO, size: int) -> bool:
    head = file.read(3 * max(_TS_PACKETS))
    for packet, sync in _TS_PACKETS.items():
        marks = head[sync::packet][: 1 + (len(head) - sync - 1) // packet]
        if marks and all(mark == _TS_SYNC for mark in marks):
            return size % packet != 0
    return False


def _riff_cut(file: BinaryIO, size: int) -> bool:
    head = file.read(8)
    if len(head) < 8 or head[:4] != b"RIFF":
        return False
    declared: int = struct.unpack("<I", head[4:])[0]
    # 0 and all ones stand in files that were written to a pipe.
    return 0 < declared < 0xFFFFFFFF and declared + 8 > size
