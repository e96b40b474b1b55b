"""Dense captions of frames: average precision over IoU and METEOR (Johnson et al. 2016, as Dense VOC scores it).

A box is right if it is the first, by score, to claim the true box that it overlaps most, the overlap reaches a
threshold, and METEOR of its caption exceeds another. True boxes that overlap are merged before, since Visual Genome
tells one thing several times. A true box without caption is right whatever is said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .world import Boxes, World, box_iou

__all__ = ["CaptionScorer", "densecap"]

IOU_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
METEOR_THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)

_MERGE = 0.7
_LEVELS = 100
"""Of recall: 0, .01 ... .99."""
_EMPTY = "EMPTY"

CaptionScorer = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[float]]
"""Scores captions told against one or more true ones each; `Meteor.each` is one."""


@dataclass(frozen=True)
class _Truth:
    """Merged true boxes of a frame."""

    boxes: NDArray[np.float32]
    """(G, 4)."""
    captions: list[list[str]]
    tracks: list[int]
    """Of the first box of each cluster."""


class _Claim(NamedTuple):
    """What became of a box that was told."""

    score: float
    caption: str
    overlap: float
    """With the true box that it overlaps most."""
    place: int | None
    """That box, if this is the first to claim it."""


def densecap(
    world: World,
    meteor: CaptionScorer | None = None,
    *,
    ignore_empty: bool = True,
    switch_score: float = 0.5,
) -> dict[str, float]:
    """Score the boxes of every frame; boxes of equal score count in the order of the frames.

    Args:
        world: tracks matter for `cap_switch` only.
        meteor: without it only boxes are scored.
        ignore_empty: a true box without caption is right whatever is said of it; else it does not count as one to
            be found.
        switch_score: boxes from this score on count for `cap_switch`.

    Returns:
        `mAP` and `mAP_iou<i>_meteor<m>` (with METEOR), `mAP_detection` and `mAP_detection_iou<i>`; `cap_switch`:
        changes from frame to frame of the caption of one true object, per true box with a caption; and
        `num_gt_after_merge`, the true boxes.
    """
    count = len(world.videos)
    truth = [_merge(boxes) for boxes in world.truth.by_frame(count)]
    claims = [_claim(true, told, ignore_empty) for true, told in zip(truth, world.told.by_frame(count), strict=True)]
    records = [(claim, true) for true, told in zip(truth, claims, strict=True) for claim in told]
    if ignore_empty:
        positives = sum(len(true.captions) for true in truth)
    else:
        positives = sum("" not in texts for true in truth for texts in true.captions)
        records = [(claim, true) for claim, true in records if claim.caption != _EMPTY]
    records.sort(key=lambda record: -record[0].score)
    scores = _precisions(records, positives, meteor)
    merged = sum(len(true.captions) for true in truth)
    return scores | {"cap_switch": _switches(world, truth, claims, switch_score), "num_gt_after_merge": merged}


def _merge(boxes: Boxes) -> _Truth:
    """Take the largest cluster of overlapping boxes as their mean, and so on; of equal ones the first."""
    rows = boxes.boxes.astype(np.float32)
    near = box_iou(rows, rows) >= _MERGE
    merged: list[NDArray[np.float32]] = []
    captions: list[list[str]] = []
    tracks: list[int] = []
    while near.any():  # a box without area overlaps nothing, itself included, and is dropped
        members = np.flatnonzero(near[near.sum(axis=1).argmax()])
        merged.append(rows[members].mean(axis=0))
        captions.append([boxes.captions[i].replace("\n", "") for i in members])
        tracks.append(int(boxes.tracks[members[0]]))
        near[members] = near[:, members] = False
    return _Truth(np.array(merged, np.float32).reshape(-1, 4), captions, tracks)


def _claim(truth: _Truth, told: Boxes, ignore_empty: bool) -> list[_Claim]:
    """By descending score each box claims the true one that it overlaps most, whether it is taken or not."""
    told = told.take(np.argsort(-told.scores, kind="stable"))
    overlaps = box_iou(told.boxes, truth.boxes)
    taken: set[int] = set()
    claims = []
    for score, caption, row in zip(told.scores.tolist(), told.captions, overlaps, strict=True):
        best = int(row.argmax()) if len(row) else -1
        first = best >= 0 and row[best] > 0 and best not in taken
        if first:
            taken.add(best)
            if ignore_empty and "" in truth.captions[best]:
                caption = _EMPTY
        claims.append(_Claim(score, caption, float(row[best]) if best >= 0 else -1.0, best if first else None))
    return claims


def _precisions(
    records: Sequence[tuple[_Claim, _Truth]], positives: int, meteor: CaptionScorer | None
) -> dict[str, float]:
    """Average precision at every pair of thresholds, and the means."""
    claimed = np.array([claim.place is not None for claim, _ in records], bool)
    overlaps = np.array([claim.overlap for claim, _ in records])
    right = {limit: claimed & (overlaps >= limit) for limit in IOU_THRESHOLDS}
    found = {f"mAP_detection_iou{limit:.1f}": _average_precision(hits, positives) for limit, hits in right.items()}
    results = {"mAP_detection": float(np.mean(list(found.values()))), **found}
    if meteor is not None:
        values = _caption_scores(records, meteor)
        told = {
            f"mAP_iou{limit:.1f}_meteor{least:.2f}": _average_precision(hits & (values > least), positives)
            for limit, hits in right.items()
            for least in METEOR_THRESHOLDS
        }
        results |= {"mAP": float(np.mean(list(told.values()))), **told}
    return results


def _caption_scores(records: Sequence[tuple[_Claim, _Truth]], meteor: CaptionScorer) -> NDArray[np.float64]:
    """(N,) the scores of captions of boxes that claimed a true one; 0 for others, which are wrong anyway."""
    values = np.zeros(len(records))
    asked = [i for i, (claim, _) in enumerate(records) if claim.place is not None]
    if asked:
        told = [records[i][0].caption for i in asked]
        values[asked] = meteor(told, [_references(*records[i]) for i in asked])
    return values


def _references(claim: _Claim, truth: _Truth) -> list[str]:
    assert claim.place is not None, "asked only of boxes that claimed one"
    return [_EMPTY] if claim.caption == _EMPTY else truth.captions[claim.place]


def _average_precision(hits: NDArray[np.bool_], positives: int) -> float:
    """Mean over the levels of recall of the best precision at that recall or more; `hits` by descending score."""
    if not len(hits):
        return 0.0
    found = hits.cumsum()
    precision = found / np.arange(1, len(hits) + 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing to find: no level, or every level, is reached
        recall = found / positives
    reached = recall >= np.arange(_LEVELS)[:, None] / _LEVELS
    return float((precision * reached).max(axis=1).mean())


def _switches(world: World, truth: Sequence[_Truth], claims: Sequence[Sequence[_Claim]], score: float) -> float:
    """Changes of the caption of each true track from one of its frames to the next, by captioned true boxes."""
    changes = 0
    for places in world.frames_of().values():
        before: dict[int, str] = {}
        for place in places:
            now = _captions_now(truth[place], claims[place], score)
            changes += sum(before.get(track, caption) != caption for track, caption in now.items())
            before |= now
    captioned = sum(bool(texts[0]) for true in truth for texts in true.captions)
    return changes / captioned if changes and captioned else 0.0


def _captions_now(truth: _Truth, claims: Sequence[_Claim], score: float) -> dict[int, str]:
    """True track -> what the first box that claims it says."""
    found: dict[int, str] = {}
    for claim in claims:
        if claim.place is not None and claim.score >= score:
            found[truth.tracks[claim.place]] = claim.caption
    return found
