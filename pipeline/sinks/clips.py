"""A folder of clips and pictures of events, bounded in size: the oldest give way."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from ..errors import OutputError

__all__ = ["ClipFolder"]

_ABANDONED = 60.0
"""Seconds after which a half written file is nobody's."""
_SUFFIXES = (".mp4", ".mkv", ".jpg")


class ClipFolder:
    """Writes the files of an event, named after its id. Touches no other file of the folder."""

    def __init__(self, path: str | Path, keep: int, kinds: Iterable[str]) -> None:
        """Remember where to write.

        Args:
            path: the folder; it is made if only its last part is missing.
            keep: bytes that the clips may take, those of earlier runs included.
            kinds: the kinds of events whose files may be here.
        """
        self.path = Path(path)
        self._keep = keep
        self._ours = re.compile(rf"(.+_\d+_(?:{'|'.join(map(re.escape, kinds))})_\d+)(?:\.mp4|\.mkv|\.jpg)")
        self._sizes: dict[str, int] = {}
        """Name without suffix -> bytes of all its files, the oldest first."""
        self._total = 0

    def open(self) -> None:
        """Make sure that the folder can be written, and count what is there.

        Raises:
            OutputError: it cannot.
        """
        try:
            self.path.mkdir(exist_ok=True)
            probe = self.path / f".onlooker.{os.getpid()}.part"
            probe.write_bytes(b"?")
            probe.unlink()
            self._sweep()
            found = [(entry.stat(), match[1]) for entry in self.path.iterdir() if (match := self._match(entry.name))]
        except OSError as error:
            raise OutputError(
                f"cannot write clips to {str(self.path)!r}: {_reason(error)}; choose another folder."
            ) from None
        for status, name in sorted(found, key=lambda one: (one[0].st_mtime_ns, one[1])):
            self._count(name, self._sizes.get(name, 0) + status.st_size)

    def write(self, event_id: str, video: bytes, suffix: str, picture: bytes) -> tuple[str, str | None]:
        """Write the files of an event and return their names: of the video, and of the picture if there is one.

        Raises:
            OSError: they cannot be written; nothing of them is left then.
        """
        name = event_id.replace("/", "_")
        files = {f"{name}{suffix}": video}
        if picture:
            files[f"{name}.jpg"] = picture
        size = sum(map(len, files.values()))
        if size > self._keep:
            raise OSError("a clip is larger than all clips together may be")
        self._remove(name)
        while self._sizes and self._total + size > self._keep:
            self._remove(next(iter(self._sizes)))
        try:
            for file, content in files.items():
                self._put(self.path / file, content)
        except OSError:
            self._count(name, size)
            self._remove(name)
            raise
        self._count(name, size)
        return f"{name}{suffix}", f"{name}.jpg" if picture else None

    def _match(self, name: str) -> re.Match[str] | None:
        return self._ours.fullmatch(name)

    def _sweep(self) -> None:
        """Delete what a process that died left half written; what is young may be another one's work."""
        for entry in self.path.glob(".*.part"):
            if self._match(entry.name[1:-5]) and time.time() - entry.stat().st_mtime > _ABANDONED:
                entry.unlink(missing_ok=True)

    def _put(self, path: Path, content: bytes) -> None:
        """Write a file that appears under its name when it is complete."""
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(content)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def _count(self, name: str, size: int) -> None:
        self._total += size - self._sizes.pop(name, 0)
        self._sizes[name] = size

    def _remove(self, name: str) -> None:
        """Delete the files of an event, if it has any that we know of."""
        if name in self._sizes:
            self._total -= self._sizes.pop(name)
            for suffix in _SUFFIXES:
                (self.path / f"{name}{suffix}").unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
