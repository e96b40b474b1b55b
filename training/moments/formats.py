"""Formats of annotation files by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onlooker.operators.errors import OnlookerError

from . import FORMAT_NAMES
from .annotations import Annotations
from .captions import read_activitynet_captions, read_charades, read_qvhighlights, read_tacos
from .classes import read_activitynet, read_coin

__all__ = ["FORMATS", "Format", "read_moments"]


Reader = Callable[[str | Path, str | None], Annotations]


@dataclass(frozen=True)
class Format:
    """A file format, and what UnLoc trains on it (arXiv 2308.11062, section 4)."""

    read: Reader
    """Reads one subset of a file, or all of it."""
    task: str
    """`task` of the localizer's configuration."""
    subsets: tuple[str, ...] = ()
    """Parts that one file holds; none where each part is a file of its own."""


def _whole(read: Callable[[str | Path], Annotations]) -> Reader:
    """A reader of files that are one subset each."""
    return lambda path, _: read(path)


_FORMATS = (
    Format(_whole(read_qvhighlights), "highlight_detection"),
    Format(_whole(read_charades), "moment_retrieval"),
    Format(_whole(read_activitynet_captions), "moment_retrieval"),
    Format(_whole(read_tacos), "moment_retrieval"),
    Format(read_coin, "action_segmentation", ("training", "testing")),
    Format(read_activitynet, "temporal_localization", ("training", "validation", "testing")),
)
FORMATS = dict(zip(FORMAT_NAMES, _FORMATS, strict=True))


def read_moments(path: str | Path, format_name: str, subset: str | None = None) -> Annotations:
    """Read a file of annotations, plain or gzipped.

    Args:
        path: the file.
        format_name: one of `FORMATS`.
        subset: the part of a file that holds several; None for all of it.

    Raises:
        OnlookerError: no such format, a subset where the format has none, or the file is not what the format wants.
    """
    if format_name not in FORMATS:
        raise OnlookerError(f"unknown format {format_name!r}: choose one of {', '.join(FORMATS)}.")
    chosen = FORMATS[format_name]
    if subset is not None and not chosen.subsets:
        raise OnlookerError(f"a file of format {format_name} is one subset: leave out {subset!r}.")
    return chosen.read(path, subset)
