"""CHOTA: how well objects are found, followed and described (Zhou et al., arXiv 2306.11729).

HOTA (Luiten et al. 2021), with a third part: CapA, the mean similarity of captions over the detections that are right.
CHOTA is the geometric mean of DetA, AssA and CapA. As in the reference, a caption counts once per detection, so long
tracks weigh more, and CIDEr takes its document frequencies from the true captions of one video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from onlooker.operators.caption.metrics.cider import cider
from onlooker.operators.caption.metrics.meteor import Meteor

from .world import Boxes, World, box_iou

__all__ = ["HOTA_THRESHOLDS", "ChotaScores", "Scorer", "chota", "cider_scorer", "exact_scorer", "meteor_scorer"]

HOTA_THRESHOLDS = np.arange(0.05, 0.99, 0.05)
"""The thresholds over which HOTA is averaged; CHOTA takes 0.5 alone."""

_EPS = np.finfo(np.float64).eps
_TINY = 1e-10

Floats = NDArray[np.float64]
Values = dict[str, Floats]
Ints = NDArray[np.int64]

Scorer = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""Similarity of captions, pair by pair: (true, told) of one video."""


def cider_scorer(true: Sequence[str], told: Sequence[str]) -> Sequence[float]:
    """CIDEr in 0..10, on words as they stand between blanks."""
    return cider(told, [[text] for text in true])[1]


def meteor_scorer(meteor: Meteor) -> Scorer:
    """METEOR in 0..1, by a process that runs."""
    return lambda true, told: meteor.each(told, [[text] for text in true])


def exact_scorer(true: Sequence[str], told: Sequence[str]) -> Sequence[float]:
    """1 where the texts are the same, else 0."""
    return [float(one == other) for one, other in zip(true, told, strict=True)]


@dataclass(frozen=True)
class ChotaScores:
    """Scores of all videos together, and of each."""

    thresholds: Floats
    """(R,) of the IoU."""
    values: Values
    """Name -> (R,). `HOTA_TP`, `HOTA_FN`, `HOTA_FP` and `TP_with_caps` count detections; `DetA`, `AssA`, `HOTA`,
    `DetRe`, `DetPr`, `AssRe`, `AssPr`, `LocA` and `OWTA` are as in TrackEval; `CapA-<scorer>` one for each scorer,
    and, if there are scorers, their mean `CapA`, and `CHOTA`."""
    videos: Mapping[object, Values]
    """The same of each video, without `CapA` and `CHOTA`, which exist only over all."""

    def means(self) -> dict[str, float]:
        """Means over the thresholds."""
        return {name: float(values.mean()) for name, values in self.values.items()}


def chota(
    world: World,
    scorers: Mapping[str, Scorer],
    *,
    thresholds: ArrayLike = (0.5,),
    score: float = 0.5,
) -> ChotaScores:
    """Score tracks with captions.

    Args:
        world: several boxes of one frame may share a track; they count for it once.
        scorers: by name. Detections whose true caption is empty are left out of CapA.
        thresholds: R values of the IoU from which a detection is right.
        score: only what was told with more than this counts.
    """
    limits = np.asarray(thresholds, np.float64).reshape(-1)
    truth = world.truth.by_frame(len(world.videos))
    told = world.told.take(np.flatnonzero(world.told.scores > score)).by_frame(len(world.videos))
    videos = {}
    for video, places in world.frames_of().items():
        videos[video] = _score_video([truth[i] for i in places], [told[i] for i in places], scorers, limits)
    return ChotaScores(limits, _combine(list(videos.values()), list(scorers), len(limits)), videos)


class _Frame(NamedTuple):
    """A frame of a video; identities are numbered from 0 within the video."""

    truth: Boxes
    told: Boxes
    rows: Ints
    """(G,) identity of each true box."""
    columns: Ints
    """(P,) identity of each box told."""
    similarity: NDArray[np.float32]
    """(G, P) IoU. In float32 like the reference, since its last bit decides at a threshold."""


class _Alignment(NamedTuple):
    """How identities fit, and how often they are seen."""

    score: Floats
    """(G, P) Jaccard index of each pair over the video."""
    true: Floats
    """(G, 1) frames of each true identity."""
    told: Floats
    """(1, P)."""


def _score_video(
    truth: Sequence[Boxes], told: Sequence[Boxes], scorers: Mapping[str, Scorer], thresholds: Floats
) -> Values:
    """What the published code computes of one sequence."""
    shape = (len(thresholds),)
    true_count, told_count = sum(map(len, truth)), sum(map(len, told))
    if not true_count or not told_count:
        zeros = ("HOTA_TP", "TP_with_caps", "AssA", "AssRe", "AssPr", "DetRe", "DetPr", "DetA", "OWTA", "HOTA")
        ones = ("LocA", *(f"CapA-{name}" for name in scorers))
        counts = {"HOTA_FN": np.full(shape, float(true_count)), "HOTA_FP": np.full(shape, float(told_count))}
        return counts | {name: np.zeros(shape) for name in zeros} | {name: np.ones(shape) for name in ones}
    frames = _frames(truth, told)
    alignment = _align(frames)
    found = [_match(frames, alignment, float(threshold)) for threshold in thresholds]
    hits = np.array([float(one.right) for one in found])
    values = {"HOTA_TP": hits, "HOTA_FN": true_count - hits, "HOTA_FP": told_count - hits}
    values["TP_with_caps"] = np.array([float(len(one.true)) for one in found])
    seen = {"AssA": alignment.true + alignment.told, "AssRe": alignment.true, "AssPr": alignment.told}
    for name, total in seen.items():
        values[name] = np.array([_association(one, total, name == "AssA") for one in found])
    values["LocA"] = np.maximum(_TINY, [one.overlap for one in found]) / np.maximum(_TINY, hits)
    for name, scorer in scorers.items():
        sums = [float(np.sum(scorer(one.true, one.told))) if one.true else 0.0 for one in found]
        values[f"CapA-{name}"] = np.array(sums) / np.maximum(_TINY, values["TP_with_caps"])
    return values | _derived(values)


def _frames(truth: Sequence[Boxes], told: Sequence[Boxes]) -> list[_Frame]:
    true_ids = np.unique(np.concatenate([boxes.tracks for boxes in truth]))
    told_ids = np.unique(np.concatenate([boxes.tracks for boxes in told]))
    return [
        _Frame(
            true,
            other,
            np.searchsorted(true_ids, true.tracks),
            np.searchsorted(told_ids, other.tracks),
            box_iou(true.boxes.astype(np.float32), other.boxes.astype(np.float32)),
        )
        for true, other in zip(truth, told, strict=True)
    ]


def _align(frames: Sequence[_Frame]) -> _Alignment:
    """Overlap of identities over the whole video, before anything is matched."""
    true = np.zeros((1 + max(int(f.rows.max(initial=-1)) for f in frames), 1))
    told = np.zeros((1, 1 + max(int(f.columns.max(initial=-1)) for f in frames)))
    shared = np.zeros((len(true), told.shape[1]))
    for frame in frames:
        overlap = frame.similarity
        total = overlap.sum(0)[None] + overlap.sum(1)[:, None] - overlap
        parts = np.divide(overlap, total, out=np.zeros_like(overlap), where=total > _EPS)
        # An identity that a frame holds twice counts once there: the last one, as NumPy adds.
        shared[frame.rows[:, None], frame.columns[None]] += parts
        true[frame.rows] += 1
        told[0, frame.columns] += 1
    return _Alignment(shared / (true + told - shared), true, told)


class _Matches(NamedTuple):
    """What is right at one threshold."""

    right: int
    """Boxes told that are right."""
    counts: Floats
    """(G, P) frames in which the identities were matched."""
    overlap: float
    """Sum of their IoU."""
    true: list[str]
    """Captions of the matched boxes whose true caption is not empty."""
    told: list[str]


def _match(frames: Sequence[_Frame], alignment: _Alignment, threshold: float) -> _Matches:
    """Pair boxes frame by frame, so that identities that fit and boxes that overlap come together."""
    counts = np.zeros_like(alignment.score)
    hits, overlap = 0, 0.0
    true: list[str] = []
    told: list[str] = []
    for frame in frames:
        score = alignment.score[frame.rows[:, None], frame.columns[None]] * frame.similarity
        rows, columns = linear_sum_assignment(-score)
        right = frame.similarity[rows, columns] >= threshold - _EPS
        rows, columns = rows[right], columns[right]
        hits += len(rows)
        counts[frame.rows[rows], frame.columns[columns]] += 1
        overlap += float(frame.similarity[rows, columns].sum(dtype=np.float64))
        pairs = [(frame.truth.captions[i], frame.told.captions[j]) for i, j in zip(rows, columns, strict=True)]
        true += [text for text, _ in pairs if text]
        told += [other for text, other in pairs if text]
    return _Matches(hits, counts, overlap, true, told)


def _association(found: _Matches, total: Floats, union: bool) -> float:
    """Mean over the detections that are right: frames their identities share, by those of either or of one of them."""
    share = found.counts / np.maximum(1, total - found.counts if union else total)
    return float((found.counts * share).sum()) / max(1, found.right)


def _derived(values: Values) -> Values:
    """What follows from counts and association."""
    hits, missed, wrong = values["HOTA_TP"], values["HOTA_FN"], values["HOTA_FP"]
    recall = hits / np.maximum(1, hits + missed)
    accuracy = hits / np.maximum(1, hits + missed + wrong)
    return {
        "DetRe": recall,
        "DetPr": hits / np.maximum(1, hits + wrong),
        "DetA": accuracy,
        "OWTA": np.sqrt(recall * values["AssA"]),
        "HOTA": np.sqrt(accuracy * values["AssA"]),
    }


def _combine(videos: Sequence[Values], scorers: Sequence[str], count: int) -> Values:
    """Counts are summed; the rest is averaged over detections that are right (captions: that have a true one)."""

    def total(name: str, weight: str | None = None) -> Floats:
        parts = (video[name] * video[weight] if weight else video[name] for video in videos)
        return sum(parts, np.zeros(count))

    values = {name: total(name) for name in ("HOTA_TP", "HOTA_FN", "HOTA_FP", "TP_with_caps")}
    for name in ("AssA", "AssRe", "AssPr"):
        values[name] = total(name, "HOTA_TP") / np.maximum(1, values["HOTA_TP"])
    means = {"LocA": "HOTA_TP"} | {f"CapA-{name}": "TP_with_caps" for name in scorers}
    for name, weight in means.items():
        # Without any detection to average over these are 1, as in the reference.
        values[name] = np.maximum(_TINY, total(name, weight)) / np.maximum(_TINY, values[weight])
    values |= _derived(values)
    if scorers:
        values["CapA"] = np.mean([values[f"CapA-{name}"] for name in scorers], axis=0)
        values["CHOTA"] = np.cbrt(values["DetA"] * values["AssA"] * values["CapA"])
    return values
