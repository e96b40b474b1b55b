"""Features of videos as files: a folder with one array a video, from a tower of ours or from anywhere else.

    <video>.npz     features (F, E) float16 or float32 and, if known, fps and duration (seconds), each one number
    <video>.npy     the features alone
    features.json   optional, about all files: {"fps": 2.0, "tower": "tiny"}

Row i tells of the video from i / fps seconds on.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onlooker.operators.errors import OnlookerError
from onlooker.training.files import whole_file

__all__ = ["SETTINGS", "FeatureError", "FeatureFolder", "VideoFeatures", "write_features"]

SETTINGS = "features.json"
_SUFFIXES = (".npy", ".npz")
# ActivityNet's files of captions name videos with this prefix, its files of classes without.
_PREFIX = "v_"

FloatArray = npt.NDArray[np.float32]


class FeatureError(OnlookerError):
    """A folder or file of features cannot be used."""


@dataclass(frozen=True)
class VideoFeatures:
    """What a tower saw in a video."""

    rows: FloatArray
    """(F, E), F > 0."""
    fps: float
    """Rows per second of media time."""
    duration: float
    """Seconds."""


class FeatureFolder:
    """Reads features by the name of their video; files are read when they are asked for."""

    def __init__(self, folder: str | Path, fps: float | None = None) -> None:
        """List the files.

        Args:
            folder: holds the files.
            fps: rows per second of files that do not say; None: what `features.json` says, or, for a video whose
                length is known, its rows spread over it.

        Raises:
            FeatureError: no folder with features, or two files for one video.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FeatureError(f"no folder {str(folder)!r} with features: make it by onlooker train localize-features.")
        self._files: dict[str, Path] = {}
        for path in sorted(self.folder.iterdir()):
            if path.suffix in _SUFFIXES and not path.name.startswith("."):
                if path.stem in self._files:
                    raise FeatureError(f"{str(folder)!r} has two files for video {path.stem!r}: remove one.")
                self._files[path.stem] = path
        if not self._files:
            raise FeatureError(f"{str(folder)!r} holds no features: no file ends in {' or '.join(_SUFFIXES)}.")
        self.settings = read_settings(self.folder)
        given = self.settings.get("fps")
        self._fps = float(given) if fps is None and given is not None else fps

    def __len__(self) -> int:
        """Number of videos."""
        return len(self._files)

    def has(self, video: str) -> bool:
        """Whether there is a file for a video."""
        return self._find(video) is not None

    def read(self, video: str, duration: float | None = None) -> VideoFeatures:
        """The features of a video.

        Args:
            video: its name, without suffix.
            duration: seconds, if the annotations tell.

        Raises:
            FeatureError: there is no usable file for it, or nothing says how many rows make a second.
        """
        path = self._find(video)
        if path is None:
            raise FeatureError(f"no features of video {video!r} in {str(self.folder)!r}.")
        rows, fps, own = _load(path)
        duration = own if own is not None else duration
        fps = fps or self._fps or (len(rows) / duration if duration else None)
        if fps is None:
            raise FeatureError(f"{path.name}: nothing says how many rows make a second: give --feature-fps.")
        return VideoFeatures(rows, fps, duration if duration is not None else len(rows) / fps)

    def _find(self, video: str) -> Path | None:
        other = video.removeprefix(_PREFIX) if video.startswith(_PREFIX) else _PREFIX + video
        return self._files.get(video) or self._files.get(other)


def write_features(path: Path, rows: npt.NDArray[Any], fps: float, duration: float) -> None:
    """Write a `.npz`, half precision where it suffices; under its name it is whole or not there.

    Raises:
        OSError: it cannot be written.
    """
    with np.errstate(over="ignore"):
        half = rows.astype(np.float16)
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, features=half if np.isfinite(half).all() else rows, fps=fps, duration=duration)


def read_settings(folder: Path) -> dict[str, Any]:
    """What `features.json` says; nothing where it is missing.

    Raises:
        FeatureError: it is no JSON object, or its fps no positive number.
    """
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise FeatureError(f"{str(path)!r} cannot be read: {str(error)[:80]}.") from error
    if not isinstance(settings, dict) or not _positive(settings.get("fps", 1.0)):
        raise FeatureError(f'{str(path)!r} must say {{"fps": rows per second, "tower": name}}.')
    return settings


def missing_line(videos: Sequence[str], what: str) -> str:
    """One line that some videos are `what`, with the names of the first."""
    some = ", ".join(videos[:3]) + (", ..." if len(videos) > 3 else "")
    return f"{len(videos)} {'video' if len(videos) == 1 else 'videos'} {what}: {some}"


def _load(path: Path) -> tuple[FloatArray, float | None, float | None]:
    """Rows, and fps and duration if the file tells."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            rows, values = found, {}
        else:
            with found:
                rows = found["features"]
                values = {name: found[name].item() for name in ("fps", "duration") if name in found}
    except KeyError as error:
        raise FeatureError(f"{path.name}: holds no array named features.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FeatureError(f"{path.name}: cannot be read as features: {' '.join(str(error).split())[:80]}.") from error
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind != "f":
        raise FeatureError(f"{path.name}: features must be (rows, width) of floats, got {rows.dtype} {rows.shape}.")
    if wrong := [name for name, value in values.items() if not _positive(value)]:
        raise FeatureError(f"{path.name}: its {wrong[0]} is no positive number.")
    rows = np.ascontiguousarray(rows, np.float32)
    if not np.isfinite(rows).all():
        raise FeatureError(f"{path.name}: some features are not finite.")
    return rows, values.get("fps"), values.get("duration")


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
