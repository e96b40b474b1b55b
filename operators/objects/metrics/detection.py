"""How well boxes are found, whatever they show: average precision and recall by the rules of COCO (Lin et al. 2014).

Detections are matched by descending score; each takes the free true box that it overlaps most. What lies in a crowd
region, or takes one, counts neither as right nor as wrong. `tests/objects` compares with pycocotools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "THRESHOLDS",
    "Detected",
    "Interval",
    "Matches",
    "average_precision",
    "average_recall",
    "bootstrap",
    "match_image",
]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's, of the IoU."""

_LEVELS = np.linspace(0, 1, 101)
"""Of recall."""

Floats = NDArray[np.float64]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Detected:
    """What is true and what was found in one picture; boxes are left, top, right, bottom."""

    truth: ArrayLike
    """(G, 4)."""
    boxes: ArrayLike
    """(P, 4)."""
    scores: ArrayLike
    """(P,)."""
    crowd: ArrayLike | None = None
    """(G,) which true boxes are regions full of objects that nobody counted; None = none of them."""


@dataclass(frozen=True)
class Matches:
    """What became of the detections of one picture, by descending score."""

    scores: Floats
    """(P,)."""
    right: NDArray[np.bool_]
    """(R, P) by threshold."""
    ignored: NDArray[np.bool_]
    """(R, P) those that lie in a crowd."""
    truth: int
    """True boxes, crowds not counted."""


class Interval(NamedTuple):
    """A figure, and between what bounds it would lie in other pictures of the same kind."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Such as `.412 (.380-.451)`."""
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


def match_image(image: Detected, thresholds: ArrayLike = THRESHOLDS, most: int = 100) -> Matches:
    """Match the `most` best detections of a picture."""
    limits = np.minimum(np.asarray(thresholds, np.float64), 1 - 1e-10)
    truth = np.asarray(image.truth, np.float64).reshape(-1, 4)
    crowd = np.zeros(len(truth), bool) if image.crowd is None else np.asarray(image.crowd, bool)
    scores = np.asarray(image.scores, np.float64)
    order = np.argsort(-scores, kind="stable")[:most]
    overlap = _overlap(np.asarray(image.boxes, np.float64).reshape(-1, 4)[order], truth, crowd)
    right = np.zeros((len(limits), len(order)), bool)
    ignored = np.zeros_like(right)
    for row, limit in enumerate(limits):
        free = np.ones(len(truth), bool)
        for place, values in enumerate(overlap):
            taken = _best(values, free & ~crowd, limit)
            if taken is not None:
                right[row, place], free[taken] = True, False
            else:
                ignored[row, place] = _best(values, crowd, limit) is not None
    return Matches(scores[order], right, ignored, int((~crowd).sum()))


def average_precision(images: Sequence[Matches], row: int = 0) -> float:
    """Average precision at the threshold `row`, interpolated at 101 levels of recall; nan if nothing is to be found."""
    total = sum(image.truth for image in images)
    if not total:
        return float("nan")
    scores = np.concatenate([image.scores for image in images])
    counted = ~np.concatenate([image.ignored[row] for image in images])
    right = np.concatenate([image.right[row] for image in images])
    order = np.argsort(-scores, kind="stable")
    order = order[counted[order]]
    if not len(order):
        return 0.0
    hits = right[order].cumsum()
    precision = hits / np.arange(1, len(order) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / total, _LEVELS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(places, len(envelope))].mean())


def average_recall(images: Sequence[Matches]) -> float:
    """The part of the true boxes that is found, averaged over the thresholds; nan if nothing is to be found."""
    total = sum(image.truth for image in images)
    hits = sum(image.right.sum(axis=1).astype(np.float64) for image in images)
    return float(np.mean(hits / total)) if total else float("nan")


def bootstrap(
    images: Sequence[Item],
    *statistics: Callable[[Sequence[Item]], float],
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Figures with intervals: the pictures are drawn anew, with replacement, `rounds` times.

    Args:
        images: what is known of each picture.
        statistics: what makes a figure of any number of them.
        rounds: of drawing.
        level: how much of what is drawn lies in the interval.
        seed: of the drawings.

    Returns:
        One interval for each statistic. All see the same drawings.

    Raises:
        ValueError: no pictures.
    """
    if not images:
        raise ValueError("no pictures to draw from")
    rng = np.random.default_rng(seed)
    drawn = np.empty((rounds, len(statistics)))
    for values in drawn:
        chosen = [images[i] for i in rng.integers(0, len(images), len(images))]
        values[:] = [statistic(chosen) for statistic in statistics]
    tails = (1 - level) / 2
    low, high = np.nanquantile(drawn, [tails, 1 - tails], axis=0)
    return [
        Interval(statistic(images), float(a), float(b)) for statistic, a, b in zip(statistics, low, high, strict=True)
    ]


def _overlap(boxes: Floats, truth: Floats, crowd: NDArray[np.bool_]) -> Floats:
    """(P, G) IoU; with a crowd region the part of the detection that lies in it."""
    corner = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    sides = (np.minimum(boxes[:, None, 2:], truth[None, :, 2:]) - corner).clip(0)
    shared = sides.prod(axis=-1)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)[:, None]
    union = np.where(crowd, own, own + (truth[:, 2:] - truth[:, :2]).prod(axis=-1) - shared)
    overlap: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def _best(values: Floats, allowed: NDArray[np.bool_], limit: float) -> int | None:
    """The allowed true box with the largest overlap that reaches the limit, the last of equal ones."""
    possible = np.where(allowed & (values >= limit), values, -1.0)[::-1]
    if not len(possible) or possible.max() < 0:
        return None
    return len(values) - 1 - int(possible.argmax())
