"""Captions in the JSON of ActivityNet Captions: what ``onlooker eval dense-captions`` and public evaluators read."""

from __future__ import annotations

import json
from pathlib import Path

from onlooker.operators.contract import SourceInfo
from onlooker.operators.events import CaptionData, Event

from .output import AppendFile, StreamFileSink

__all__ = ["ActivityNetSink"]


class ActivityNetSink(StreamFileSink):
    """Settled captions (phase ``end``) of one stream, times in seconds; the file is complete once it is closed.

    The video's name is the stream's name, which is that of the file without its suffix unless it holds characters that
    a stream name may not hold.
    """

    def __init__(self, path: str | Path) -> None:
        """Remember where to write."""
        super().__init__(path)
        self._file: AppendFile | None = None
        self._captions = 0

    def event(self, event: Event) -> None:
        """Write a settled caption. See ``Sink.event``."""
        data = event.data
        if event.phase != "end" or data.t_end is None or not isinstance(data, CaptionData):
            return
        assert self._file is not None, "event before start"
        caption = {"sentence": data.text, "timestamp": [data.t_start, data.t_end]}
        separator = ",\n" if self._captions else "\n"
        self._file.append((separator + json.dumps(caption, ensure_ascii=False)).encode())
        self._captions += 1

    def _begin(self, info: SourceInfo, uri: str) -> None:
        self._file = AppendFile(self.path)
        head = json.dumps({"version": "VERSION 1.3", "external_data": {"used": False, "details": ""}})
        self._file.append(f'{head[:-1]}, "results": {{{json.dumps(info.stream)}: ['.encode())

    def _complete(self) -> None:
        assert self._file is not None
        self._file.append(b"\n]}}\n")
        self._file.close()
