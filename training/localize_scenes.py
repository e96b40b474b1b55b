"""Windows of moment videos, drawn from a tower's features of captioned photographs: localization without any video.

Photographs are shown one after the other under a slow drift of the camera and fade into each other; some come again,
some are followed by one that resembles them. The queries about a window are captions of what it shows and of what it
does not, and names of object classes. Truth is exact, and a window costs no more than reading its features.

What a drawn window must be like was measured on rendered videos of the dev split: the cosine between neighbouring
samples is .99, five samples apart .97, from the first of a scene to its last .94. Windows have .99, .98 and .95.
A tower knows the photographs that it was trained with better than any other: their captions stand .47 from them, where
those of the dev split stand .37. So each photograph is mixed with one that resembles it until the figures are those of
photographs that nobody was trained with (`SceneRecipe.blur`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onlooker.training.flickr import read_captions
from onlooker.training.moment_scenes import shown_classes

if TYPE_CHECKING:
    from onlooker.training.tower import Heads

__all__ = ["Bank", "SceneRecipe", "SceneWindows", "Window", "open_bank"]

Floats = npt.NDArray[np.float32]
Span = tuple[float, float]

TEMPLATES = ("{}", "a {}", "a photo of a {}", "there is a {} in the picture")
"""What class names are put into; the same as for queries of the user's."""
_NEIGHBOURS = 100
_POOL = 10_000
_KNOTS = 5


@dataclass(frozen=True)
class Bank:
    """A tower's features of a split: P photographs in V views with K captions, C classes in M templates.

    Attributes:
        images: (P, V, E) float32 raw image features.
        captions: (P, K, E) float32 raw text features.
        near: (P, n) int64 the photographs that resemble each one, nearest first.
        classes: C names.
        class_texts: (C, M, E) float32 raw text features.
        shows: (P, C) int8: 1 shows the class, 0 does not, -1 nobody knows.
        spread: (E, E) float32 square root of the covariance of raw image features.
    """

    images: Floats
    captions: Floats
    near: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    class_texts: Floats
    shows: npt.NDArray[np.int8]
    spread: Floats

    @classmethod
    def build(
        cls,
        images: Floats,
        captions: Floats,
        classes: Sequence[str],
        class_texts: Floats,
        shows: npt.NDArray[np.int8],
    ) -> Bank:
        """Measure who resembles whom and how features are spread."""
        unit = images.mean(1)
        unit /= np.maximum(np.linalg.norm(unit, axis=-1, keepdims=True), 1e-12)
        alike = unit @ unit.T
        np.fill_diagonal(alike, -np.inf)
        count = min(_NEIGHBOURS, len(images) - 1)
        near = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(near, np.argsort(-np.take_along_axis(alike, near, 1), 1), 1)
        values, vectors = np.linalg.eigh(np.cov(images[:, 0].T).astype(np.float64))
        spread = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)
        return cls(images, captions, near, tuple(classes), class_texts, shows, spread)


def open_bank(cache: Path, data: Path, split: str, heads: Heads, class_texts: Floats, classes: Sequence[str]) -> Bank:
    """Features of a split out of a filled token cache.

    Args:
        cache: folder of `onlooker.training.features.fill_cache`, with the sentences of `TinyModel.cached_captions`.
        data: the data folder, for captions and boxes of classes.
        split: train, dev or test.
        heads: of the tower (`Heads.of_tower`).
        class_texts: (C, M, E) raw text features of the classes' names.
        classes: names of the C classes, of `pseudo_boxes.json`.
    """
    import torch

    from onlooker.training.tower import mean_tokens

    files = json.loads((cache / "index.json").read_text(encoding="utf-8"))[split]
    with torch.inference_mode():
        pooled = mean_tokens(cache, split)
        images = torch.stack([heads.out(torch.nn.functional.gelu(heads.hidden(row))) for row in pooled.unbind(1)], 1)
        captions = heads.text(torch.from_numpy(np.load(cache / f"sentences_{split}.npy")))
    texts = read_captions(data)
    boxes = json.loads((data / "flickr8k" / "pseudo_boxes.json").read_text(encoding="utf-8"))["boxes"]
    found, shows = shown_classes([boxes.get(file, []) for file in files], [texts[file] for file in files])
    column = {name: number for number, name in enumerate(found)}
    absent = np.zeros(len(files), np.int8)
    known = np.stack([shows[:, column[name]] if name in column else absent for name in classes], 1)
    return Bank.build(images.numpy(), captions.numpy(), classes, class_texts, known)


@dataclass(frozen=True)
class SceneRecipe:
    """How windows are drawn.

    Attributes:
        frames: T, samples of a window.
        seconds: media time from sample to sample.
        scene: shortest and longest time of a photograph, seconds.
        fade: longest cross-fade, seconds; drawn evenly from 0.
        again: share of the scenes that show an earlier photograph again.
        alike: share of the scenes that show one that resembles an earlier one.
        of_class: share of the scenes that show a photograph of a class drawn evenly.
        short: share of the windows of a stream that began less than T samples ago.
        blur: least and largest weight of the photograph that each one is mixed with.
        jitter: what differs from sample to sample, in parts of the spread of features.
        wander: what differs from second to second, in the same parts.
        positives, hard, queries: captions of what is shown, captions of what resembles it, and queries in all.
        classes, class_share: most queries for classes that are there, and most for such as are not; each of them is
            asked with this chance.
    """

    frames: int = 64
    seconds: float = 0.5
    scene: Span = (3.0, 17.0)
    fade: float = 1.0
    again: float = 0.2
    alike: float = 0.2
    of_class: float = 0.2
    short: float = 0.15
    blur: Span = (0.45, 0.9)
    jitter: float = 0.1
    wander: float = 0.15
    positives: int = 3
    hard: int = 2
    queries: int = 8
    classes: int = 1
    class_share: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.scene[0] <= self.scene[1] or not 0 <= self.fade <= self.scene[0]:
            raise ValueError(f"scenes of {self.scene} s must be longer than a fade of {self.fade} s")
        if not 0 <= self.blur[0] <= self.blur[1] < 1:
            raise ValueError(f"blur is a range inside 0 ... 1, got {self.blur}")


@dataclass(frozen=True)
class Window:
    """T samples and Q queries.

    Attributes:
        features: (T, E) float32 raw image features, zero behind the last sample.
        length: samples that are there.
        texts: (Q, E) float32 raw text features.
        moments: per query its spans in samples, fractions included, cut at the window: 0 <= start < end <= length.
    """

    features: Floats
    length: int
    texts: Floats
    moments: tuple[tuple[Span, ...], ...]


@dataclass(frozen=True)
class _Shown:
    """A photograph between two times, in samples; the first may begin before the window, the last end behind it."""

    photograph: int
    start: float
    end: float


class SceneWindows:
    """Draws windows of the photographs of a bank."""

    def __init__(self, bank: Bank, recipe: SceneRecipe | None = None) -> None:
        """Find the classes that can be shown."""
        self.bank, self.recipe = bank, recipe or SceneRecipe()
        self._members = [np.flatnonzero(column == 1) for column in bank.shows.T]
        common = [c for c, name in enumerate(bank.classes) if name != "person" and len(self._members[c]) >= 5]
        self._drawable = np.array(common, np.int64)
        # Drawing from a pool costs a hundredth of drawing anew.
        pool = np.random.default_rng(0).standard_normal((_POOL, len(bank.spread)), dtype=np.float32)
        self._pool: Floats = pool @ bank.spread.T

    def __call__(self, rng: np.random.Generator) -> Window:
        """A random window."""
        length = self.recipe.frames
        if rng.random() < self.recipe.short:
            length = int(rng.integers(4, length))
        shown = self._scenes(rng, length)
        features = np.zeros((self.recipe.frames, self.bank.images.shape[-1]), np.float32)
        features[:length] = self._features(rng, shown, length)
        texts, wanted = self._queries(rng, {scene.photograph for scene in shown})
        moments = tuple(_moments(shown, photographs, length) for photographs in wanted)
        return Window(features, length, texts, moments)

    def _scenes(self, rng: np.random.Generator, length: int) -> list[_Shown]:
        """What is shown from sample 0 to `length`."""
        per_second = 1 / self.recipe.seconds
        low, high = (seconds * per_second for seconds in self.recipe.scene)
        start = -float(rng.uniform(0, high))
        shown: list[_Shown] = []
        while start < length:
            end = start + float(rng.uniform(low, high))
            if end > 0:
                shown.append(_Shown(self._next(rng, [scene.photograph for scene in shown]), start, end))
            start = end
        return shown

    def _next(self, rng: np.random.Generator, before: list[int]) -> int:
        """The photograph that follows those `before`; never the one that is shown."""
        kind = rng.random()
        again, alike, of_class = np.cumsum([self.recipe.again, self.recipe.alike, self.recipe.of_class])
        if kind < again and len(before) > 1:
            chosen = int(rng.choice(before[:-1]))
        elif again <= kind < alike and before:
            chosen = int(rng.choice(self.bank.near[rng.choice(before), :20]))
        elif alike <= kind < of_class and len(self._drawable):
            chosen = int(rng.choice(self._members[rng.choice(self._drawable)]))
        else:
            chosen = int(rng.integers(len(self.bank.images)))
        if before and chosen == before[-1]:
            return (chosen + 1) % len(self.bank.images)
        return chosen

    def _features(self, rng: np.random.Generator, shown: Sequence[_Shown], length: int) -> Floats:
        """Raw features (length, E): each scene's own, mixed where two fade into each other."""
        looks = {photograph: self._look(rng, photograph) for photograph in {scene.photograph for scene in shown}}
        times = np.arange(length, dtype=np.float32)
        out = np.zeros((length, self.bank.images.shape[-1]), np.float32)
        fade = 0.0
        for number, scene in enumerate(shown):
            following = self._fade(rng) if number + 1 < len(shown) else 0.0
            first, last = scene.start - fade / 2, scene.end + following / 2
            inside = np.flatnonzero((times > first) & (times < last))
            if len(inside):
                frames = self._drift(rng, looks[scene.photograph], (times[inside] - first) / (last - first))
                weight = np.ones(len(inside), np.float32)
                if fade > 0:
                    weight = _smooth((times[inside] - first) / fade)
                out[inside] += (frames - out[inside]) * weight[:, None]
                # Half of each picture is no picture: halfway, features leave the line between the two by half its
                # length, in no direction of its own.
                between = (weight * (1 - weight))[:, None]
                out[inside] += 2 * between * self._noise(rng, len(inside))
            fade = following
        return out + self.recipe.jitter * self._noise(rng, length) + self._wander(rng, length)

    def _wander(self, rng: np.random.Generator, length: int) -> Floats:
        """Rows (length, E) that change within seconds, as what stands at the edge of a moving picture does."""
        count = length // _KNOTS + 3
        knots = self.recipe.wander * self._noise(rng, count)
        place = (np.arange(length, dtype=np.float32) + rng.uniform(0, _KNOTS)) / _KNOTS
        before = place.astype(np.int64)
        share = (place - before)[:, None]
        return np.asarray(knots[before] + share * (knots[before + 1] - knots[before]), np.float32)

    def _fade(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(0, self.recipe.fade)) / self.recipe.seconds

    def _noise(self, rng: np.random.Generator, count: int) -> Floats:
        """Rows (count, E) with the spread of image features and mean zero."""
        return self._pool[rng.integers(0, len(self._pool), count)]

    def _look(self, rng: np.random.Generator, photograph: int) -> Floats:
        """Views (V, E) of a photograph that nobody was trained with."""
        own = self.bank.images[photograph]
        other = self.bank.images[rng.choice(self.bank.near[photograph])]
        mixed = own + float(rng.uniform(*self.recipe.blur)) * (other.mean(0) - own.mean(0))
        length = np.linalg.norm(own, axis=-1, keepdims=True) / np.linalg.norm(mixed, axis=-1, keepdims=True)
        return np.asarray(mixed * length, np.float32)

    def _drift(self, rng: np.random.Generator, views: Floats, share: Floats) -> Floats:
        """Frames (t, E) on a smooth way from somewhere between the views to somewhere else; `share` 0 ... 1 of it."""
        ends = rng.dirichlet(np.full(len(views), 0.3), 2).astype(np.float32) @ views  # 2, E
        way = _smooth(share)[:, None]
        return np.asarray(ends[0] + way * (ends[1] - ends[0]), np.float32)

    def _queries(self, rng: np.random.Generator, shown: set[int]) -> tuple[Floats, list[set[int]]]:
        """Texts (Q, E), and for each the photographs of which it is true."""
        asked: list[tuple[Floats, set[int]]] = []
        members = np.array(sorted(shown))
        for photograph in rng.permutation(members)[: self.recipe.positives]:
            asked.append((self._caption(rng, photograph), {int(photograph)}))
        asked += self._class_queries(rng, members)
        for _ in range(self.recipe.hard):
            rival = int(rng.choice(self.bank.near[rng.choice(members), :30]))
            if rival not in shown:
                asked.append((self._caption(rng, rival), set()))
        while len(asked) < self.recipe.queries:
            other = int(rng.integers(len(self.bank.captions)))
            if other not in shown:
                asked.append((self._caption(rng, other), set()))
        asked = asked[: self.recipe.queries]
        return np.stack([text for text, _ in asked]), [photographs for _, photographs in asked]

    def _caption(self, rng: np.random.Generator, photograph: int) -> Floats:
        captions = self.bank.captions[photograph]
        return np.asarray(captions[rng.integers(len(captions))])

    def _class_queries(self, rng: np.random.Generator, members: npt.NDArray[np.int64]) -> list[tuple[Floats, set[int]]]:
        """Queries for classes that are there, and for classes that are not."""
        shows = self.bank.shows[members]  # n, C
        known = (shows >= 0).all(0)
        present, absent = np.flatnonzero(known & (shows == 1).any(0)), np.flatnonzero(known & (shows == 0).all(0))
        asked = []
        for classes in (present, absent):
            count = rng.binomial(self.recipe.classes, self.recipe.class_share)
            for chosen in rng.permutation(classes)[:count]:
                texts = self.bank.class_texts[chosen]
                asked.append((texts[rng.integers(len(texts))], set(members[shows[:, chosen] == 1].tolist())))
        return asked


def _smooth(share: Floats) -> Floats:
    """From 0 to 1 with no speed at either end."""
    inside = np.clip(share, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), np.float32)


def _moments(shown: Sequence[_Shown], wanted: set[int], length: int) -> tuple[Span, ...]:
    """When any of the wanted photographs is shown, scenes that follow one another as one; only what has a sample."""
    moments: list[Span] = []
    for scene in shown:
        if scene.photograph not in wanted:
            continue
        start, end = max(scene.start, 0.0), min(scene.end, float(length))
        if np.ceil(start) >= min(end, length):
            continue
        if moments and moments[-1][1] == start:
            moments[-1] = (moments[-1][0], end)
        else:
            moments.append((start, end))
    return tuple(moments)
