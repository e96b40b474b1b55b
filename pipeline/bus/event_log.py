"""A file of events that a subscriber may be killed over at any moment, and go on with."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import OutputError
from .inbox import Position

__all__ = ["EventLog"]


class EventLog:
    """JSON lines of events with the attributes ``sequence`` and ``busepoch``. One process writes a file at a time."""

    def __init__(self, path: str | Path) -> None:
        """Open the file or make it, and cut off a last line that is not whole.

        Raises:
            OutputError: it cannot be written, another process writes it, or it holds something else.
        """
        self._path = Path(path)
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._error("cannot open", error) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.position = self._last()
        except BlockingIOError:
            os.close(self._fd)
            raise OutputError(f"another program writes events to {self._path}; choose another file.") from None
        except OSError as error:
            os.close(self._fd)
            raise self._error("cannot read", error) from None
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, line: str) -> None:
        """Write one line, whole or not at all as far as the disk allows.

        Raises:
            OutputError: it cannot be written, for example because the disk is full.
        """
        data = line.encode() + b"\n"
        before = os.fstat(self._fd).st_size
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            os.ftruncate(self._fd, before)
            raise self._error("cannot write to", error) from None

    def _error(self, what: str, error: OSError) -> OutputError:
        return OutputError(f"{what} {self._path}: {(error.strerror or str(error)).lower()}.")

    def _last(self) -> str | None:
        """Position of the last event that has one; None where there is none."""
        size = os.fstat(self._fd).st_size
        if size == 0:
            return None
        with mmap.mmap(self._fd, size, access=mmap.ACCESS_READ) as text:
            end = text.rfind(b"\n")
            if end == -1 and text[:1] != b"{":
                raise self._foreign()
            while end > 0:
                begin = text.rfind(b"\n", 0, end)
                if (found := self._position(text[begin + 1 : end])) is not None:
                    break
                end = begin
            else:
                found = None
            whole = text.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(self._fd, whole)
        return found

    def _position(self, line: bytes) -> str | None:
        """What a line tells; events that the bus did not store have no number."""
        try:
            members = json.loads(line)
            if "sequence" in members:
                return str(Position(int(members["sequence"]), members["busepoch"]))
            known = "specversion" in members
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise self._foreign()
        return None

    def _foreign(self) -> OutputError:
        return OutputError(
            f"{self._path} is no log of `onlooker subscribe`: its last line is no event of a bus; choose another file."
        )

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()
