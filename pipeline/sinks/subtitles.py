"""Captions and query events as subtitles: WebVTT and SubRip (SRT).

Only settled facts (phase ``end``) become cues. A cue is written the moment it settles, so the file is playable all
along; a query event can settle after captions that began later, and both formats want cues by start time, so where
that happened the file is put in order when it closes. 32 bytes per cue are kept in memory for that.
"""

from __future__ import annotations

import html
import os
from abc import abstractmethod
from array import array
from pathlib import Path
from typing import BinaryIO, ClassVar

from onlooker.operators.contract import SourceInfo
from onlooker.operators.events import CaptionData, Event, QueryData

from .output import AppendFile, StreamFileSink, replace_file

__all__ = ["SrtSink", "WebVttSink"]

# A cue that is empty after rounding to milliseconds would never be shown; it lasts this long instead.
_SHORTEST_MS = 500


class _SubtitleSink(StreamFileSink):
    header: ClassVar[bytes] = b""

    def __init__(self, path: str | Path) -> None:
        """Remember where to write."""
        super().__init__(path)
        self._starts = array("q")  # ms
        self._ends = array("q")  # ms
        self._offsets = array("q")  # bytes, of the cue without its number
        self._lengths = array("q")
        self._file: AppendFile | None = None
        self._in_order = True

    def _begin(self, info: SourceInfo, uri: str) -> None:
        self._file = AppendFile(self.path)
        self._file.append(self.header)

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
        start = max(0, round(data.t_start * 1000))
        end = round(data.t_end * 1000)
        if end <= start:
            end = start + _SHORTEST_MS
        self._append(start, end, self.cue(data.event_id, start, end, text, is_query=is_query).encode())

    def _append(self, start: int, end: int, cue: bytes) -> None:
        assert self._file is not None, "event before start"
        number = self.number(len(self._starts) + 1)
        offset = self._file.append(number + cue)
        self._in_order = self._in_order and (not self._starts or self._starts[-1] <= start)
        self._starts.append(start)
        self._ends.append(end)
        self._offsets.append(offset + len(number))
        self._lengths.append(len(cue))

    def _complete(self) -> None:
        assert self._file is not None
        self._file.close()
        if not self._in_order:
            replace_file(self.path, self._write_in_order)

    def _write_in_order(self, target: BinaryIO) -> None:
        order = sorted(range(len(self._lengths)), key=lambda i: (self._starts[i], self._ends[i], i))
        target.write(self.header)
        with self.path.open("rb") as source:
            for number, i in enumerate(order, 1):
                source.seek(self._offsets[i], os.SEEK_SET)
                target.write(self.number(number) + source.read(self._lengths[i]))

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

    header = b"WEBVTT\n\n"

    @staticmethod
    def cue(event_id: str, start: int, end: int, text: str, *, is_query: bool) -> str:
        """See ``_SubtitleSink.cue``."""
        escaped = html.escape(text, quote=False)
        settings = " line:0 align:start position:2%" if is_query else ""
        payload = f"<c.query>[{escaped}]</c>" if is_query else escaped
        return f"{event_id}\n{_clock(start, '.')} --> {_clock(end, '.')}{settings}\n{payload}\n\n"


class SrtSink(_SubtitleSink):
    """SubRip. Queries stand in brackets."""

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
