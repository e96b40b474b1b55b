"""Captions and query events as subtitles: WebVTT and SubRip (SRT).

Only settled facts (phase ``end``) become cues. A cue is written the moment it settles, so the file is playable all
along; a query event can settle after captions that began later, and both formats want cues by start time, so where
that happened the file is read again and put in order when it closes. Until then nothing of a cue stays in memory.

Times are media time; of live streams seconds since watching began.
"""

from __future__ import annotations

import html
import os
from abc import abstractmethod
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, ClassVar

from onlooker.operators.contract import SourceInfo
from onlooker.operators.events import CaptionData, Event, QueryData

from .output import AppendFile, StreamFileSink, replace_file

__all__ = ["SrtSink", "WebVttSink"]

# A cue that is empty after rounding to milliseconds would never be shown; it lasts this long instead.
_SHORTEST_MS = 500


class _SubtitleSink(StreamFileSink):
    point: ClassVar[str]
    """What separates milliseconds from seconds."""

    def __init__(self, path: str | Path) -> None:
        """Remember where to write."""
        super().__init__(path)
        self._file: AppendFile | None = None
        self._header = b""
        self._cues = 0
        self._last_start = 0  # ms
        self._in_order = True

    def _begin(self, info: SourceInfo, uri: str) -> None:
        self._file = AppendFile(self.path)
        self._header = self.header(info)
        self._file.append(self._header)

    def event(self, event: Event) -> None:
        """Write a cue for a settled caption or query event. See ``Sink.event``."""
        data = event.data
        if event.phase != "end" or data.t_end is None or not isinstance(data, CaptionData | QueryData):
            return
        is_query = isinstance(data, QueryData)
        # One line of text without control characters: a blank line would end the cue.
        text = " ".join((data.query if isinstance(data, QueryData) else data.text).replace("\0", " ").split())
        if not text:
            return
        start = max(0, round((self._zero + data.t_start) * 1000))
        end = round((self._zero + data.t_end) * 1000)
        if end <= start:
            end = start + _SHORTEST_MS
        assert self._file is not None, "event before start"
        cue = self.cue(data.event_id, start, end, text, is_query=is_query).encode()
        self._file.append(self.number(self._cues + 1) + cue)
        self._cues += 1
        self._in_order = self._in_order and self._last_start <= start
        self._last_start = start

    def _complete(self) -> None:
        assert self._file is not None
        self._file.close()
        if not self._in_order:
            replace_file(self.path, self._write_in_order)

    def _write_in_order(self, target: BinaryIO) -> None:
        starts, ends, offsets, lengths = (array("q") for _ in range(4))  # ms, ms, bytes, bytes
        for cue in self._written():
            for column, value in zip((starts, ends, offsets, lengths), cue, strict=True):
                column.append(value)
        target.write(self._header)
        with self.path.open("rb") as source:
            for number, i in enumerate(sorted(range(len(starts)), key=lambda i: (starts[i], ends[i], i)), 1):
                source.seek(offsets[i], os.SEEK_SET)
                target.write(self.number(number) + source.read(lengths[i]))

    def _written(self) -> Iterator[tuple[int, int, int, int]]:
        """Of each cue in the file start and end in ms, offset and length in bytes, without its number."""
        with self.path.open("rb") as file:
            offset = file.seek(len(self._header))
            times: tuple[int, int] | None = None
            begin, cues = offset, 0
            for line in file:
                offset += len(line)
                if times is None and b" --> " in line:  # what a person or a model wrote comes after it
                    start, _, end = line.decode().split()[:3]
                    times = self._ms(start), self._ms(end)
                elif line == b"\n" and times is not None:
                    cues += 1
                    begin += len(self.number(cues))
                    yield *times, begin, offset - begin
                    begin, times = offset, None

    @classmethod
    def _ms(cls, clock: str) -> int:
        """The inverse of ``_clock``."""
        hours, minutes, seconds = clock.replace(cls.point, ".").split(":")
        return round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000)

    @staticmethod
    def header(info: SourceInfo) -> bytes:
        """What the file begins with."""
        return b""

    @staticmethod
    def number(number: int) -> bytes:
        """The line that counts the cues, for formats that have one."""
        return b""

    @staticmethod
    @abstractmethod
    def cue(event_id: str, start: int, end: int, text: str, *, is_query: bool) -> str:
        """One cue with its closing blank line; times in ms, ``text`` one unescaped line."""


class WebVttSink(_SubtitleSink):
    """WebVTT. Captions stand at the bottom, queries in brackets at the top; cue ids are the events' ids."""

    point = "."

    @staticmethod
    def header(info: SourceInfo) -> bytes:
        """See ``_SubtitleSink.header``; of a live stream it says when its time began."""
        if not info.live:
            return b"WEBVTT\n\n"
        began = datetime.fromtimestamp(info.epoch / 1000, UTC).isoformat(timespec="milliseconds")
        return f"WEBVTT\n\nNOTE Time 0 is {began}\n\n".encode()

    @staticmethod
    def cue(event_id: str, start: int, end: int, text: str, *, is_query: bool) -> str:
        """See ``_SubtitleSink.cue``."""
        escaped = html.escape(text, quote=False)
        settings = " line:0 align:start position:2%" if is_query else ""
        payload = f"<c.query>[{escaped}]</c>" if is_query else escaped
        return f"{event_id}\n{_clock(start, '.')} --> {_clock(end, '.')}{settings}\n{payload}\n\n"


class SrtSink(_SubtitleSink):
    """SubRip. Queries stand in brackets."""

    point = ","
    # SubRip knows no escapes, and players read <...> and {\...} as mark-up: look-alikes keep the text readable.
    _LOOKALIKES: ClassVar[dict[int, str]] = str.maketrans({"<": "‹", ">": "›"})

    @staticmethod
    def number(number: int) -> bytes:
        """See ``_SubtitleSink.number``."""
        return b"%d\n" % number

    @staticmethod
    def cue(event_id: str, start: int, end: int, text: str, *, is_query: bool) -> str:
        """See ``_SubtitleSink.cue``."""
        plain = text.translate(SrtSink._LOOKALIKES).replace("{\\", "(\\")
        payload = f"[{plain}]" if is_query else plain
        return f"{_clock(start, ',')} --> {_clock(end, ',')}\n{payload}\n\n"


def _clock(ms: int, point: str) -> str:
    """``hh:mm:ss.mmm``; hours have as many digits as they need, two at least."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"
