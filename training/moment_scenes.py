"""Videos in which one can look for moments: scenes come again, others resemble them, and queries know their truth.

    library = MomentLibrary(root, "dev")
    asked = write_moment_video(library, "dev03.mp4", seed=1003)
    asked.queries[0].text, asked.queries[0].moments

A video shows photographs of one split as `scenes.py` does. Some are shown once, some two or three times under another
pan and zoom, and beside them stand distractors, whose captions share words with those of a queried photograph. The
queries are captions of photographs with one moment, with several, and with none, and names of object classes. Beside
`NAME.mp4` and its truth `NAME.json` stands `NAME.queries.json`.

Nearness is that of words (cosine of tf-idf over the five captions), not of any model's features, so that no model is
judged by its own idea of what is alike.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from .flickr import read_split
from .scenes import Scene, Truth, VideoOptions, read_truth, write_scenes

__all__ = ["AskedVideo", "MomentLibrary", "MomentQuery", "MomentRecipe", "read_moment_video", "write_moment_video"]

Span = tuple[float, float]
QueryKind = Literal["one", "several", "absent", "hard absent", "class", "absent class"]

_SURE = 0.5
"""Score from which a box of the teacher counts without a caption that says the same."""
_LARGE = 0.04 * 224 * 224
"""Area in pixels of the stored photographs from which a thing counts as shown."""


@dataclass(frozen=True)
class MomentQuery:
    """Something to look for, and when it is there."""

    text: str
    """A caption, or the name of a class."""
    kind: QueryKind
    moments: tuple[Span, ...]
    """Half-open spans in seconds, in order and apart; none for what is absent."""


@dataclass(frozen=True)
class AskedVideo:
    """A generated video with the queries about it."""

    truth: Truth
    queries: tuple[MomentQuery, ...]


@dataclass(frozen=True)
class MomentRecipe:
    """What a video shows and what is asked about it; each number counts photographs or queries."""

    once: int = 5
    """Queried photographs with one moment."""
    again: int = 3
    """Queried photographs with two or three moments."""
    distractors: int = 4
    """Photographs that resemble queried ones."""
    of_class: int = 2
    """Photographs of one object class other than `person`."""
    others: int = 2
    """Photographs that nobody asks for."""
    absent: int = 3
    """Queries about photographs that resemble nothing in the video."""
    hard_absent: int = 3
    """Queries about photographs that are not in the video but resemble one that is."""
    classes: int = 2
    """Queries by class name with at least one moment, as far as there are any."""
    absent_classes: int = 1
    """Queries by the name of a class that is not there."""
    alike: Span = (0.25, 0.40)
    """Cosine between captions of what resembles: nearer photographs could be meant by the same words."""
    common: float = 0.6
    """Largest share of the video that a queried class may fill."""
    seconds: Span = (4.0, 14.0)
    """Time of each scene."""


class MomentLibrary:
    """The photographs of a split, how alike their captions are, and which object classes they show.

    Attributes:
        alike: (P, P) float32 cosine of the captions' words, zero on the diagonal.
        classes: names of the teacher's classes that some photograph of the split shows.
        shows: (P, C) int8: 1 shows the class, 0 does not, -1 nobody knows.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        """Read captions and boxes below the data root.

        Raises:
            ValueError: there is no such split.
            FileNotFoundError: the folder lacks `flickr8k/` or its `pseudo_boxes.json`.
        """
        self.photographs = read_split(Path(root), split)
        self.alike = caption_similarity(self.photographs.captions)
        boxes = json.loads((Path(root) / "flickr8k" / "pseudo_boxes.json").read_text(encoding="utf-8"))["boxes"]
        rows = [boxes.get(file, []) for file in self.photographs.files]
        self.classes, self.shows = shown_classes(rows, self.photographs.captions)

    def scene(self, photograph: int) -> Scene:
        """The photograph as a scene, squashed like its copy on disk."""
        file = self.photographs.files[photograph]
        return Scene(self.photographs.images / file, self.photographs.captions[photograph], file, "stretch")


def caption_similarity(captions: Sequence[Sequence[str]]) -> npt.NDArray[np.float32]:
    """Cosine of tf-idf between the captions of P photographs: (P, P) float32, zero on the diagonal."""
    words = [Counter(re.findall(r"[a-z]+", " ".join(texts).lower())) for texts in captions]
    spread = Counter(word for counts in words for word in counts)
    column = {word: i for i, word in enumerate(sorted(word for word, n in spread.items() if n > 1))}
    weights = np.zeros((len(captions), len(column)), np.float32)
    for row, counts in zip(weights, words, strict=True):
        for word in counts.keys() & column.keys():
            row[column[word]] = np.sqrt(counts[word]) * np.log(len(captions) / spread[word])
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
    alike: npt.NDArray[np.float32] = weights @ weights.T
    np.fill_diagonal(alike, 0)
    return alike


def shown_classes(
    boxes: Sequence[Sequence[tuple[str, float, float, float, float, float]]], captions: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], npt.NDArray[np.int8]]:
    """Which class each of P photographs shows, by the teacher's boxes and by its captions.

    A large sure box counts, and a large weak one where a caption names the class. Less than that tells nothing.

    Args:
        boxes: per photograph rows of class, score, and x0, y0, x1, y1 in pixels of the stored photograph.
        captions: per photograph its sentences.

    Returns:
        The C class names, and (P, C) int8 with 1 for shown, 0 for not shown, -1 for unknown.
    """
    names = tuple(sorted({row[0] for rows in boxes for row in rows}))
    shows = np.zeros((len(boxes), len(names)), np.int8)
    for p, (rows, texts) in enumerate(zip(boxes, captions, strict=True)):
        said = " ".join(texts).lower()
        for c, name in enumerate(names):
            named = re.search(rf"\b{name}(s|es)?\b", said) is not None
            seen = [score for kind, score, *_ in rows if kind == name]
            large = [score for kind, score, x0, y0, x1, y1 in rows if kind == name and (x1 - x0) * (y1 - y0) >= _LARGE]
            if large and (max(large) >= _SURE or named):
                shows[p, c] = 1
            elif seen or named:
                shows[p, c] = -1
    return names, shows


def write_moment_video(
    library: MomentLibrary,
    path: str | Path,
    *,
    seed: int,
    recipe: MomentRecipe | None = None,
    options: VideoOptions | None = None,
) -> AskedVideo:
    """Write a video, its truth and its queries; the same seed gives the same.

    The queries are written last, so that a file of queries says that the video is complete.

    Raises:
        ValueError: the recipe asks for more photographs than there are, or for too few beside those that come again.
    """
    recipe = recipe or MomentRecipe()
    path = Path(path)
    rng = np.random.default_rng([seed, 2])
    plan = _Plan.draw(library, recipe, rng)
    options = options or VideoOptions(width=480, height=270, fps=6, seconds=recipe.seconds, noise=3.0, crf=28)
    truth = write_scenes([library.scene(p) for p in plan.order], path, seed=seed, options=options)
    asked = AskedVideo(truth, tuple(_queries(library, recipe, plan, truth, rng)))
    text = json.dumps([asdict(query) for query in asked.queries], indent=1, ensure_ascii=False)
    path.with_suffix(".queries.json").write_text(text + "\n", encoding="utf-8")
    return asked


def read_moment_video(path: str | Path) -> AskedVideo:
    """Read what `write_moment_video` left beside a video."""
    path = Path(path)
    rows = json.loads(path.with_suffix(".queries.json").read_text(encoding="utf-8"))
    queries = tuple(
        MomentQuery(row["text"], row["kind"], tuple((start, end) for start, end in row["moments"])) for row in rows
    )
    return AskedVideo(read_truth(path.with_suffix(".json")), queries)


@dataclass(frozen=True)
class _Plan:
    """Photographs by their part in a video."""

    once: tuple[int, ...]
    again: tuple[int, ...]
    order: tuple[int, ...]
    """What is shown, scene by scene."""

    @classmethod
    def draw(cls, library: MomentLibrary, recipe: MomentRecipe, rng: np.random.Generator) -> _Plan:
        """Draw photographs such that no queried one resembles another one, its distractors apart."""
        low, high = recipe.alike
        asked: list[int] = []
        for p in rng.permutation(len(library.photographs)):
            if len(asked) < recipe.once + recipe.again and library.alike[p, asked].max(initial=0) < low:
                asked.append(int(p))
        again = tuple(asked[recipe.once :])
        shown = list(asked)
        for p in rng.permutation(asked):
            near = library.alike[p]
            rivals = [q for q in np.flatnonzero((near > low) & (near < high)) if library.alike[q, shown].max() < high]
            if rivals and len(shown) < len(asked) + recipe.distractors:
                shown.append(int(rng.choice(rivals)))
        free = library.alike[:, asked].max(1) < low
        free[shown] = False
        shown += _of_one_class(library, free, recipe.of_class, rng)
        free[shown] = False
        shown += rng.choice(np.flatnonzero(free), recipe.others, replace=False).tolist()
        times = {p: int(rng.integers(2, 4)) for p in again}
        return cls(tuple(asked[: recipe.once]), again, _order(shown, times, rng))


def _of_one_class(
    library: MomentLibrary, free: npt.NDArray[np.bool_], count: int, rng: np.random.Generator
) -> list[int]:
    """Photographs of one class, drawn evenly among classes that have enough of them."""
    candidates = (library.shows == 1) & free[:, None]  # P, C
    enough = [c for c, name in enumerate(library.classes) if name != "person" and candidates[:, c].sum() >= count]
    if not enough or not count:
        return []
    chosen = rng.choice(np.flatnonzero(candidates[:, rng.choice(enough)]), count, replace=False)
    return [int(p) for p in chosen]


def _order(shown: Sequence[int], times: Mapping[int, int], rng: np.random.Generator) -> tuple[int, ...]:
    """Shuffle, each photograph as often as it is to be shown and never next to itself."""
    deck = [p for p in shown for _ in range(times.get(p, 1))]
    if 2 * max(times.values(), default=1) > len(deck) + 1:
        raise ValueError(f"{len(deck)} scenes are too few to part those that come again: show more photographs")
    while True:
        order = [int(p) for p in rng.permutation(deck)]
        if all(a != b for a, b in zip(order, order[1:], strict=False)):
            return tuple(order)


def _queries(
    library: MomentLibrary, recipe: MomentRecipe, plan: _Plan, truth: Truth, rng: np.random.Generator
) -> list[MomentQuery]:
    captions = library.photographs.captions
    low, high = recipe.alike
    nearest = library.alike[:, list(set(plan.order))].max(1)
    nearest[list(plan.order)] = np.inf
    far, near = np.flatnonzero(nearest < low / 2), np.flatnonzero((nearest > low) & (nearest < high))
    far, near = rng.permutation(far)[: recipe.absent], rng.permutation(near)[: recipe.hard_absent]
    kinds: dict[QueryKind, Sequence[int]] = {
        "one": plan.once,
        "several": plan.again,
        "absent": far.tolist(),
        "hard absent": near.tolist(),
    }
    queries = [
        MomentQuery(str(rng.choice(captions[p])), kind, _moments(plan.order, truth, {p}))
        for kind, members in kinds.items()
        for p in members
    ]
    return queries + _class_queries(library, recipe, plan, truth, rng)


def _class_queries(
    library: MomentLibrary, recipe: MomentRecipe, plan: _Plan, truth: Truth, rng: np.random.Generator
) -> list[MomentQuery]:
    """Queries about classes of which it is known of every scene whether it shows them."""
    present, absent = [], []
    for c in rng.permutation(len(library.classes)):
        column = library.shows[list(plan.order), c]
        if (column < 0).any():
            continue
        moments = _moments(plan.order, truth, {p for p in plan.order if library.shows[p, c] == 1})
        if not moments:
            absent.append(MomentQuery(library.classes[c], "absent class", ()))
        elif sum(end - start for start, end in moments) <= recipe.common * truth.duration:
            present.append(MomentQuery(library.classes[c], "class", moments))
    return present[: recipe.classes] + absent[: recipe.absent_classes]


def _moments(order: Sequence[int], truth: Truth, wanted: set[int]) -> tuple[Span, ...]:
    """When any of the wanted photographs is shown; scenes that follow one another are one moment."""
    moments: list[Span] = []
    for photograph, scene in zip(order, truth.scenes, strict=True):
        if photograph not in wanted:
            continue
        if moments and moments[-1][1] == scene.t_start:
            moments[-1] = (moments[-1][0], scene.t_end)
        else:
            moments.append((scene.t_start, scene.t_end))
    return tuple(moments)
