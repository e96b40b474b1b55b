"""Windows of annotated videos for training: what a localizer sees of one, and what it is asked about it.

Two ways to look at a video, as in UnLoc (Yan et al., ICCV 2023): `linspace` spreads T frames over all of it, `fixed`
takes T that follow each other at a fixed rate. Only a localizer trained on the latter can watch a stream.

Every window is asked Q texts: some that were written about its video, and others. That a text was not written about a
video counts as that it is not true of it, as in UnLoc's loss over all pairs of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from onlooker.operators.errors import OnlookerError
from onlooker.operators.localize.unloc.sampling import Sampling
from onlooker.training.localize_scenes import Window

from .annotations import Annotations, Moment
from .features import FeatureFolder, VideoFeatures, missing_line

__all__ = ["TEMPLATES", "MomentWindows", "WindowRecipe", "last_wins"]

TEMPLATES = ("{}", "a video of {}", "someone is doing this: {}")
"""What class names are put into."""

Floats = npt.NDArray[np.float32]
Span = tuple[float, float]


@dataclass(frozen=True)
class WindowRecipe:
    """How windows are drawn.

    Attributes:
        sampling: how a video is looked at.
        frames: T.
        fps: frames per second, for `fixed`.
        queries: Q, texts about a window.
        own: most of them that were written about its video.
        hit: for `fixed`, share of the windows that lie around a moment; the others lie anywhere.
        short: for `fixed`, share of the windows that begin less than T frames ago, as at the beginning of a stream.
        templates: what class names are put into, one drawn at random.
        exclusive: a time belongs to the last moment in the file that holds it, and to no other: segmentation.
    """

    sampling: Literal["linspace", "fixed"] = "linspace"
    frames: int = 128
    fps: float = 2.0
    queries: int = 8
    own: int = 4
    hit: float = 0.75
    short: float = 0.15
    templates: tuple[str, ...] = TEMPLATES
    exclusive: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.own <= self.queries:
            raise OnlookerError(f"{self.queries} queries with {self.own} about the video itself: need 1 <= own <= all.")
        if self.frames < 2 or self.fps <= 0:
            raise OnlookerError(f"a window needs 2 frames and a positive rate, got {self.frames} at {self.fps} fps.")
        if wrong := [template for template in self.templates if template.count("{}") != 1]:
            raise OnlookerError(f"template {wrong[0]!r} must hold {{}} once, where the name of a class goes.")


@dataclass(frozen=True)
class _Query:
    """A text about a video."""

    rows: tuple[int, ...]
    """Its wordings: rows of the text features."""
    spans: tuple[Span, ...]
    """When it is true, seconds."""


@dataclass(frozen=True)
class _Video:
    name: str
    duration: float | None
    queries: tuple[_Query, ...]


class MomentWindows:
    """Draws windows of the annotated videos that have features."""

    def __init__(
        self,
        annotations: Annotations,
        features: FeatureFolder,
        encode: Callable[[Sequence[str]], Floats],
        recipe: WindowRecipe | None = None,
    ) -> None:
        """Put annotations and features together.

        Args:
            annotations: what happens in the videos.
            features: of the videos. Videos without are left out, see `missing`.
            encode: n texts to (n, E) raw features; called once.
            recipe: how windows are drawn.

        Raises:
            OnlookerError: no annotated video has features, or nothing happens in any that has.
        """
        self.features, self.recipe = features, recipe or WindowRecipe()
        self.templates = self.recipe.templates if annotations.kind == "classes" else ()
        """What class names were put into; none where there are no classes."""
        names = dict.fromkeys(video.video for video in annotations.videos)
        self.missing = [name for name in names if not features.has(name)]
        """Annotated videos without features."""
        if len(self.missing) == len(names):
            raise OnlookerError(f"{missing_line(self.missing, f'without features in {str(features.folder)!r}')}.")
        there = names.keys() - set(self.missing)
        texts = _Texts(annotations.classes, self.templates or ("{}",))
        self.videos = _by_video(annotations, there, texts, exclusive=self.recipe.exclusive)
        if not any(query.spans for video in self.videos for query in video.queries):
            raise OnlookerError("the annotations tell no moment of any video with features; are they of a test split?")
        self._others = texts.all_rows()
        self._texts = encode(texts.wordings)
        self.width = features.read(self.videos[0].name, self.videos[0].duration).rows.shape[1]
        """E of the videos' features."""
        self.text_width = int(self._texts.shape[1])
        """E of the texts' features."""

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.videos)

    def __call__(self, rng: np.random.Generator) -> Window:
        """A window of a random video.

        Spans are in frames of the window. Under `linspace` the last may end a little behind it, where the video does.

        Raises:
            OnlookerError: the features of the video cannot be used.
        """
        video = self.videos[rng.integers(len(self.videos))]
        found = self.features.read(video.name, video.duration)
        if found.rows.shape[1] != self.width:
            raise OnlookerError(
                f"video {video.name!r}: its features are {found.rows.shape[1]} wide, those of "
                f"{self.videos[0].name!r} {self.width}: all must be of one tower."
            )
        own = [video.queries[i] for i in rng.permutation(len(video.queries))[: self.recipe.own]]
        rows, length, place = self._look(rng, found, own)
        queries = own + self._foreign(rng, video, self.recipe.queries - len(own))
        texts = self._texts[[query.rows[rng.integers(len(query.rows))] for query in queries]]
        return Window(rows, length, texts, tuple(place(query.spans) for query in queries))

    def _look(
        self, rng: np.random.Generator, found: VideoFeatures, own: Sequence[_Query]
    ) -> tuple[Floats, int, Callable[[Sequence[Span]], tuple[Span, ...]]]:
        """Rows (T, E), how many of them are there, and what turns seconds into frames of the window."""
        if self.recipe.sampling == "linspace":
            return _spread(found, self.recipe.frames)
        rows = at_rate(found, self.recipe.fps)
        start, length = self._clip(rng, len(rows), own)
        out = np.zeros((self.recipe.frames, rows.shape[1]), np.float32)
        out[:length] = rows[start : start + length]

        def place(spans: Sequence[Span]) -> tuple[Span, ...]:
            frames = ((first * self.recipe.fps - start, last * self.recipe.fps - start) for first, last in spans)
            cut = ((max(first, 0.0), min(last, float(length))) for first, last in frames)
            return tuple(sorted((first, last) for first, last in cut if first < last))

        return out, length, place

    def _clip(self, rng: np.random.Generator, total: int, own: Sequence[_Query]) -> tuple[int, int]:
        """First frame and length of a window in a video of `total` frames."""
        length = min(total, self.recipe.frames)
        if rng.random() < self.recipe.short:
            length = int(rng.integers(min(4, length), length + 1))
        last = total - length
        spans = [span for query in own for span in query.spans]
        if spans and rng.random() < self.recipe.hit:
            inside = float(rng.uniform(*spans[rng.integers(len(spans))])) * self.recipe.fps
            return min(max(0, int(inside) - int(rng.integers(length))), last), length
        return int(rng.integers(last + 1)), length

    def _foreign(self, rng: np.random.Generator, video: _Video, count: int) -> list[_Query]:
        """`count` texts that were not written about the video; where there are too few, some of them twice."""
        known = {query.rows for query in video.queries}
        most = min(count, len(self._others) - len(known))
        drawn: dict[tuple[int, ...], _Query] = {}
        while len(drawn) < most:
            rows = self._others[rng.integers(len(self._others))]
            if rows not in known:
                drawn[rows] = _Query(rows, ())
        queries = list(drawn.values())
        return queries + list(islice(cycle(queries or video.queries), count - len(queries)))


def at_rate(found: VideoFeatures, fps: float) -> Floats:
    """Rows (F, E) of the times 0, 1 / fps, 2 / fps ... of a video: at each the row that tells of it."""
    count = max(1, int(np.ceil(found.duration * fps - 1e-6)))
    places = np.floor(np.arange(count) * (found.fps / fps) + 1e-6).astype(np.int64)
    rows: Floats = found.rows[np.minimum(places, len(found.rows) - 1)]
    return rows


def last_wins(moments: Sequence[Moment]) -> list[Moment]:
    """The same times, each of the last moment only that holds it; a moment may fall into several parts."""
    left: list[Moment] = []
    for moment in moments:
        for other in left[:]:
            if other.t_start < moment.t_end and moment.t_start < other.t_end:
                left.remove(other)
                parts = ((other.t_start, moment.t_start), (moment.t_end, other.t_end))
                left += [Moment(other.text, start, end, other.label) for start, end in parts if start < end]
        left.append(moment)
    return left


class _Texts:
    """All texts that can be asked, with the numbers of their wordings: of classes from the start, of videos as met."""

    def __init__(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        self._templates = templates
        self._rows: dict[str, tuple[int, ...]] = {}
        self.wordings: list[str] = []
        for text in classes:
            self.rows(text)

    def rows(self, text: str) -> tuple[int, ...]:
        if text not in self._rows:
            first = len(self.wordings)
            self.wordings += [template.replace("{}", text) for template in self._templates]
            self._rows[text] = tuple(range(first, len(self.wordings)))
        return self._rows[text]

    def all_rows(self) -> list[tuple[int, ...]]:
        return list(self._rows.values())


def _by_video(annotations: Annotations, there: set[str], texts: _Texts, *, exclusive: bool) -> list[_Video]:
    """What was annotated, video by video and text by text; videos about which nothing was written are left out."""
    spans: dict[str, dict[str, list[Span]]] = {}
    durations: dict[str, float | None] = {}
    for video in annotations.videos:
        if video.video not in there:
            continue
        durations[video.video] = video.duration
        asked = spans.setdefault(video.video, {})
        if video.query is not None:
            asked.setdefault(video.query, [])
        for moment in last_wins(video.moments) if exclusive else video.moments:
            asked.setdefault(moment.text, []).append((moment.t_start, moment.t_end))
    return [
        _Video(name, durations[name], tuple(_Query(texts.rows(text), tuple(found)) for text, found in asked.items()))
        for name, asked in spans.items()
        if asked
    ]


def _spread(found: VideoFeatures, frames: int) -> tuple[Floats, int, Callable[[Sequence[Span]], tuple[Span, ...]]]:
    """`MomentWindows._look` for frames at equal distances over the whole video."""
    # Equal distances need two ends.
    total = max(2, len(found.rows))
    sampling = Sampling("linspace", frames, total)
    rows = found.rows[np.minimum(sampling.indexes(), len(found.rows) - 1)]
    scale = found.fps * (frames - 1) / (total - 1)

    def place(spans: Sequence[Span]) -> tuple[Span, ...]:
        return tuple(sorted((start * scale, end * scale) for start, end in spans))

    return rows, frames, place
