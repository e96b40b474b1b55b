"""Annotated moments of videos, whatever file format they come from; reading and checking that all formats share."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from onlooker.operators.errors import OnlookerError

__all__ = ["Annotations", "Collector", "Moment", "MomentFileError", "MomentVideo", "load_json", "read_text"]

Kind = Literal["captions", "queries", "classes"]


class MomentFileError(OnlookerError):
    """A file of annotations cannot be read or is not what its format wants; the message names file and place."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happens from `t_start` up to `t_end`, seconds of media time."""

    text: str
    """What was written about it: a caption, a query, or the name of its class."""
    t_start: float
    t_end: float
    label: int = -1
    """Number of its class in `Annotations.classes`; -1 where there are no classes."""


@dataclass(frozen=True, slots=True)
class MomentVideo:
    """What was annotated about one video, or, where annotators looked for a query, about one query in one video."""

    id: str
    """Unique among the annotations: the video's name, with the query's number behind `#` where there is one."""
    video: str
    """Name of the video, without suffix."""
    duration: float | None
    """Seconds; None where the file does not say."""
    moments: tuple[Moment, ...]
    """In the order of the file. They may overlap; all have 0 <= t_start < t_end <= duration."""
    query: str | None = None
    """What was looked for; `moments` are all places where it is, none if nobody found (or told) any."""


@dataclass(frozen=True)
class Annotations:
    """The content of one file."""

    kind: Kind
    """captions: a sentence for each moment; queries: a query for each entry; classes: each moment is of a class."""
    videos: tuple[MomentVideo, ...]
    classes: tuple[str, ...] = ()
    """Names by number, for `classes`; the same whatever subset of the file is read."""
    left_out: tuple[str, ...] = ()
    """Moments that cannot be used, one line each: place and reason."""


@dataclass
class Collector:
    """Checks moments one by one, and remembers what had to be left out."""

    file: str
    """Its name, for messages."""
    left_out: list[str] = field(default_factory=list)

    def error(self, place: str, wrong: str) -> MomentFileError:
        """The error that something at a place is wrong."""
        return MomentFileError(f"{self.file}, {place}: {wrong}.")

    def need(self, entry: Any, names: tuple[str, ...], place: str) -> None:
        """Check that an entry is an object with these names.

        Raises:
            MomentFileError: some are missing.
        """
        missing = [name for name in names if not isinstance(entry, dict) or name not in entry]
        if missing:
            raise self.error(place, f"it lacks {', '.join(missing)}")

    def segment(self, value: Any, place: str, unit: float = 1.0) -> tuple[float, float]:
        """[start, end] in units of `unit` seconds as seconds.

        Raises:
            MomentFileError: it is no pair of finite numbers.
        """
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
            raise self.error(place, f"the times are {str(value)[:40]!r}, not [start, end]")
        return float(value[0]) * unit, float(value[1]) * unit

    def duration(self, value: Any, place: str) -> float:
        """Seconds.

        Raises:
            MomentFileError: no positive number.
        """
        if not _is_number(value) or value <= 0:
            raise self.error(place, f"the duration is {str(value)[:40]!r}, not a positive number of seconds")
        return float(value)

    def text(self, value: Any, place: str) -> str:
        """A text without blanks around it.

        Raises:
            MomentFileError: it is no text, or says nothing.
        """
        if not isinstance(value, str) or not value.strip():
            raise self.error(place, f"expected a text, got {str(value)[:40]!r}")
        return " ".join(value.split())

    def add(
        self,
        moments: list[Moment],
        text: str,
        times: tuple[float, float],
        duration: float | None,
        place: str,
        label: int = -1,
    ) -> None:
        """Append a moment, cut to the video; one that is empty or reversed is left out instead."""
        start, end = max(times[0], 0.0), times[1] if duration is None else min(times[1], duration)
        if start < end:
            moments.append(Moment(text, start, end, label))
        elif times[0] >= times[1]:
            self.left_out.append(f"{self.file}, {place}: from {times[0]:g} to {times[1]:g} s is no time")
        else:
            inside = "it is over before the video begins" if end <= 0 else f"the video ends at {duration:g} s"
            self.left_out.append(f"{self.file}, {place}: from {times[0]:g} to {times[1]:g} s, but {inside}")


def read_text(path: str | Path) -> str:
    """The text of a file, plain or gzipped.

    Raises:
        MomentFileError: it cannot be read.
    """
    try:
        raw = Path(path).read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except OSError as error:
        raise MomentFileError(f"cannot read {str(path)!r}: {(error.strerror or str(error)).lower()}.") from error
    except (EOFError, zlib.error) as error:
        raise MomentFileError(f"{str(path)!r} is no whole gzip file: copy it again.") from error
    except UnicodeDecodeError as error:
        raise MomentFileError(f"{str(path)!r} is no text in UTF-8 (byte {error.start}).") from error


def load_json(text: str, error: Callable[[str, str], MomentFileError], first_line: int = 1) -> Any:
    """Parse JSON; a name that stands twice in one object is an error and not silently the last one.

    Args:
        text: what to parse; it begins in line `first_line` of its file.
        error: makes the error of a place and what is wrong there.

    Raises:
        MomentFileError: of `error`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise error(f"entry {twice!r}", "it stands there twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as wrong:
        raise error(f"line {wrong.lineno + first_line - 1}", f"no JSON: {wrong.msg[:60]}") from wrong
    except RecursionError as wrong:
        raise error(f"line {first_line}", "no annotations: nested too deeply") from wrong


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
