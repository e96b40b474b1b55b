"""The event log as JSON Lines: one CloudEvent a line, in the order of the log, every phase."""

from __future__ import annotations

import sys
from pathlib import Path

from onlooker.operators.contract import SourceInfo
from onlooker.operators.events import Event

from .output import AppendFile, ClaimedFileSink

__all__ = ["JsonlSink"]


class JsonlSink(ClaimedFileSink):
    """Writes each event as it comes, so that ``tail -f`` and pipes see it at once; ``-`` is standard output.

    An older file at ``path`` is kept until the first stream starts. Whatever ends the run, a full disk included, the
    file holds whole lines only. Takes any number of streams.
    """

    def __init__(self, path: str | Path, canonical: bool = False) -> None:
        """Remember where to write.

        Args:
            path: the file, a named pipe or device, or ``-``.
            canonical: leave out ``data.side``, so that equal runs give equal bytes.
        """
        super().__init__(path)
        self._canonical = canonical
        self._to_stdout = str(path) == "-"
        self._file: AppendFile | None = None

    def open(self) -> None:
        """Check the path. See ``Sink.open``."""
        if not self._to_stdout and not self.path.is_fifo():  # probing a pipe would wait for its reader
            super().open()

    def start(self, info: SourceInfo, uri: str) -> None:
        """Begin the file with the first stream. See ``Sink.start``."""
        if self._to_stdout:
            return
        self._refuse_source(uri)
        self._begin()

    def event(self, event: Event) -> None:
        """Write one line. See ``Sink.event``."""
        line = event.to_json(canonical=self._canonical).encode() + b"\n"
        if self._to_stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        else:
            self._begin().append(line)

    def _begin(self) -> AppendFile:
        """The file; begun anew at the first time, which may be an event of a stream that could not start."""
        if self._file is None:
            self._file = AppendFile(self.path)
        return self._file

    def close(self) -> None:
        """Close the file; standard output stays open. See ``Sink.close``."""
        if self._file is not None:
            self._file.close()
        elif not self._to_stdout:
            self._release()
