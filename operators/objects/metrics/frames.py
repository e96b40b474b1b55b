"""The frames of a file of true boxes, and what can be wrong with such files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onlooker.operators.errors import OnlookerError

__all__ = ["Frames", "ObjectFileError"]


class ObjectFileError(OnlookerError):
    """A file of boxes cannot be read or is not what its format wants."""


@dataclass(frozen=True)
class Frames:
    """The frames of a truth file, video by video in order of time."""

    videos: tuple[Any, ...]
    """The video of each."""
    place: Mapping[Any, int]
    """Image id -> frame."""
    images: tuple[Mapping[str, Any], ...]
    """What the file says of each."""
