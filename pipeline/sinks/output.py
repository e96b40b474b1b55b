"""What the file sinks share: claiming a path without harming what is there, and appends that are all or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from onlooker.operators.contract import SourceInfo

from ..errors import OutputError
from .base import FileSink

__all__ = ["AppendFile", "ClaimedFileSink", "StreamFileSink", "replace_file"]


class AppendFile:
    """A file that only ever holds whole records: an append that fails half way is taken back."""

    def __init__(self, path: Path) -> None:
        """Create or truncate ``path``.

        Raises:
            OSError: it cannot be written.
        """
        # Unbuffered: what has been appended is with the operating system, for `tail -f` and for a process that dies.
        self._file = path.open("wb", buffering=0)
        self._regular = path.is_file()
        self.size = 0
        """Bytes written so far."""

    def append(self, record: bytes) -> int:
        """Write ``record`` and return the offset at which it begins.

        Raises:
            OSError: e.g. the disk is full; the file then ends with the record before.
        """
        begin, rest = self.size, memoryview(record)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except BaseException:
            if self._regular:
                self._file.truncate(begin)
                self._file.seek(begin)
            raise
        self.size += len(record)
        return begin

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._file.close()


def replace_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a new version of ``path`` beside it and put it in its place at once; on errors the old one stays.

    Raises:
        OSError: the new version cannot be written.
    """
    target = path.resolve()
    fresh = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with fresh.open("wb") as file:
            write(file)
        if target.exists():
            shutil.copymode(target, fresh)
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


class ClaimedFileSink(FileSink):
    """A file sink that touches an older file at its path only once a stream has really started.

    ``open`` proves that the path can be written; if the run then fails to start, an older file is as it was and a
    file that the proof created is gone.
    """

    _created = False

    def open(self) -> None:
        """Check the path. See ``Sink.open``."""
        created = not self.path.exists()
        self.check_writable()
        self._created = created

    def _refuse_source(self, uri: str) -> None:
        """Never write over the video that is being read.

        Raises:
            OutputError: ``uri`` and the output are one file.
        """
        try:
            same = self.path.samefile(uri)
        except (OSError, ValueError):  # not a file at all, e.g. an address
            return
        if same:
            raise OutputError(f"{str(self.path)!r} is the source itself; choose another path for the output.")

    def _release(self) -> None:
        """Nothing has been written: leave the path as it was found."""
        if self._created and self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()
        self._created = False


class StreamFileSink(ClaimedFileSink):
    """A regular file about one stream. Subclasses implement ``_begin`` and ``_complete``."""

    info: SourceInfo | None = None
    """The stream, once it has started."""
    _zero = 0.0
    """Added to media times: of files nothing, of live streams what makes them seconds since watching began."""
    _closed = False

    def open(self) -> None:
        """Check the path. See ``Sink.open``."""
        if self.path.exists() and not self.path.is_file():
            raise OutputError(f"cannot write {str(self.path)!r}: not a regular file; choose another path.")
        super().open()

    def start(self, info: SourceInfo, uri: str) -> None:
        """Begin the output. See ``Sink.start``.

        Raises:
            OutputError: a second stream starts, or the output is the source.
        """
        if self.info is not None:
            raise OutputError(
                f"{self.path.name!r} describes stream {self.info.stream!r} and takes no second one ({info.stream!r}); "
                "run one onlooker per stream, or write --events, which takes many."
            )
        self._refuse_source(uri)
        self._begin(info, uri)
        self.info = info

    def epoch(self, stream: str, zero: float) -> None:
        """Place what follows on the one line of time of a live stream. See ``Sink.epoch``."""
        self._zero = zero

    def close(self) -> None:
        """Complete the output; harmless when repeated. See ``Sink.close``."""
        if self._closed:
            return
        self._closed = True
        if self.info is None:
            self._release()
        else:
            self._complete()

    def _begin(self, info: SourceInfo, uri: str) -> None:
        raise NotImplementedError

    def _complete(self) -> None:
        raise NotImplementedError
