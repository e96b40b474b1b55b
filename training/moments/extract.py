"""Features of a user's videos by a tower: one file a video, at a fixed rate, once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onlooker.operators.decode import DecodedFrame, SourceError, open_video
from onlooker.operators.tower import Tower, load_tower

from .features import SETTINGS, FeatureError, read_settings, write_features

__all__ = ["Extraction", "FeatureRecipe", "extract_features", "find_videos"]

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)


@dataclass(frozen=True)
class FeatureRecipe:
    """What decides the features beside the videos."""

    tower: str = "tiny"
    fps: float = 2.0
    """Rows per second of media time."""
    batch: int = 8
    """Frames in one call of the tower."""


@dataclass
class Extraction:
    """What became of the videos, and how far it is."""

    videos: int
    written: int = 0
    skipped: int = 0
    """Were there already."""
    frames: int = 0
    seconds: float = 0.0
    """Media time of the frames that were encoded."""
    truncated: list[str] = field(default_factory=list)
    """Names of files that broke off; what they held was used."""
    broken: list[str] = field(default_factory=list)
    """One line for each video that gave nothing: its name and why."""

    @property
    def done(self) -> int:
        """Videos that need no more work."""
        return self.written + self.skipped + len(self.broken)


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """The videos among files and folders, in order; folders give the files in them that look like videos.

    Raises:
        FeatureError: something is missing, nothing is found, or two videos have one name.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise FeatureError(f"no video {str(path)!r}; check the path.")
    if not found:
        raise FeatureError(f"no videos: no file there ends in {', '.join(sorted(VIDEO_SUFFIXES))}.")
    names: dict[str, Path] = {}
    for path in found:
        if path.resolve() != names.setdefault(path.stem, path).resolve():
            raise FeatureError(
                f"{str(path)!r} and {str(names[path.stem])!r} would share the features of video {path.stem!r}: "
                "rename one."
            )
    return list(names.values())


def extract_features(
    videos: Sequence[Path], out: Path, recipe: FeatureRecipe, report: Callable[[Extraction], None] | None = None
) -> Extraction:
    """Write `<video>.npz` for every video that has none yet, and `features.json`.

    It may be interrupted at any time: what is there under its name is whole, and the next call goes on from there.

    Args:
        videos: of `find_videos`.
        out: folder for the features; made if it is not there.
        recipe: what decides them.
        report: is told how far it is after each call of the tower and each video.

    Raises:
        FeatureError: the folder holds features of another recipe.
        OnlookerError: the tower cannot be loaded.
        OSError: the folder cannot be written.
    """
    _claim(out, recipe)
    state = Extraction(len(videos))
    told = report or (lambda _: None)
    for video in videos:
        target = out / f"{video.stem}.npz"
        if target.exists():
            state.skipped += 1
        else:
            try:
                _extract(video, target, load_tower(recipe.tower, parts="image"), recipe, state, told)
                state.written += 1
            except SourceError as error:
                state.broken.append(str(error))
        told(state)
    return state


def _claim(out: Path, recipe: FeatureRecipe) -> None:
    """Make the folder, or check that it is one of this recipe."""
    settings = {"tower": recipe.tower, "fps": recipe.fps}
    out.mkdir(parents=True, exist_ok=True)
    there = read_settings(out)
    if there and (there.get("tower"), there.get("fps")) != (recipe.tower, recipe.fps):
        raise FeatureError(
            f"{str(out)!r} holds features of tower {there.get('tower')!r} at {there.get('fps')} fps: "
            "name another folder, or the same settings to add to it."
        )
    if not there:
        (out / SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _extract(
    video: Path,
    target: Path,
    tower: Tower,
    recipe: FeatureRecipe,
    state: Extraction,
    told: Callable[[Extraction], None],
) -> None:
    """Encode one video; raises SourceError if it gives no frame."""
    times: list[float] = []
    rows: list[npt.NDArray[np.float32]] = []
    before = state.seconds
    with open_video(video, rate=recipe.fps, size=tower.image_size) as reader:
        for frames in _batches(reader, recipe.batch):
            rows.append(tower.encode_frames(np.stack([f.pixels for f in frames]), recipe.batch).features.numpy())
            times += [frame.t for frame in frames]
            state.frames += len(frames)
            state.seconds = before + times[-1]
            told(state)
        assert reader.end is not None  # it was read to its end
        if reader.end.reason == "truncated":
            state.truncated.append(video.name)
    state.seconds = before + reader.end.t_end
    write_features(
        target, on_grid(np.concatenate(rows), times, recipe.fps, reader.end.t_end), recipe.fps, reader.end.t_end
    )


def on_grid(rows: npt.NDArray[np.float32], times: Sequence[float], fps: float, t_end: float) -> npt.NDArray[np.float32]:
    """Rows (n, E) of samples at `times` as rows (F, E) of the times 0, 1 / fps, 2 / fps ... up to `t_end`.

    A video may give fewer frames than that, or begin late. What was seen holds until the next sample; the first one
    also stands for the time before it.
    """
    # A sample stands for the grid point it was taken for, at or shortly before its own time.
    points = np.floor(np.asarray(times) * fps + 1e-6).astype(np.int64)
    count = max(int(points[-1]) + 1, int(np.ceil(t_end * fps - 1e-6)))
    latest = np.searchsorted(points, np.arange(count), side="right") - 1
    return rows[np.maximum(latest, 0)]


def _batches(frames: Iterable[DecodedFrame], size: int) -> Iterator[list[DecodedFrame]]:
    batch: list[DecodedFrame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
