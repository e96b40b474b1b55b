"""Non-maximum suppression as the reference of Dense VOC does it: in tiles of 256 boxes.

A box falls if its overlap with a box that stays, and comes before it, reaches the threshold. For thresholds of at least
.5 that is the usual greedy rule, found with matrix operations alone: within a tile, boxes that nothing can suppress
suppress others until nothing changes. Below .5 the reference's inner constants decide, and they are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import areas, intersections

_TILE = 256
_EPS = 1e-8
_STRONG = 0.5
"""Overlap that the rounds within a tile count as suppressing, whatever the threshold."""


class Kept(NamedTuple):
    """Boxes that are left, in fixed shapes.

    Attributes:
        which: (K,) int64, those that are left in their order, then the last of all boxes for every free place.
        valid: (K,) bool, False on free places.
    """

    which: Tensor
    valid: Tensor


def nms(boxes: Tensor, limit: int, threshold: float) -> Tensor:
    """Which of (N, 4) boxes, sorted by falling score, are left: (n,) int64 with n <= `limit`.

    A box without any positive coordinate counts as absent: it is never returned.
    """
    kept: list[Tensor] = []
    earlier, count = boxes[:0], 0
    for start in range(0, len(boxes), _TILE):
        tile = boxes[start : start + _TILE]
        place = torch.arange(start, start + len(tile), device=boxes.device)
        if len(earlier):
            free = (_iou(earlier, tile) < threshold).all(0)
            tile, place = tile[free], place[free]
        left = ~_suppressed(tile, threshold)
        tile, place = tile[left], place[left]
        earlier = torch.cat([earlier, tile])
        kept.append(place[(tile > 0).any(1)])
        count += len(kept[-1])
        if count >= limit:
            break
    return torch.cat(kept)[:limit] if kept else torch.zeros(0, dtype=torch.int64, device=boxes.device)


def padded_nms(boxes: Tensor, limit: int, threshold: float, classes: Tensor | None = None) -> Kept:
    """`nms` with exactly `limit` places; boxes (N, 4) with N at least 1.

    Args:
        boxes: sorted by falling score.
        limit: K.
        threshold: overlap from which a box falls.
        classes: (N,) integers; boxes of different classes do not see each other.
    """
    if classes is not None:
        boxes = boxes + (classes * (boxes.max() + 1))[:, None]
    index = nms(boxes, limit, threshold)
    padded = index.new_full((limit,), len(boxes) - 1)
    padded[: len(index)] = index
    return Kept(padded, torch.arange(limit, device=boxes.device) < len(index))


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """(N, 4), (M, 4) -> (N, M): `pairwise_iou` with the reference's epsilon, which tells in the tiniest boxes."""
    common = intersections(one, other)
    return common / (areas(one)[:, None] + areas(other)[None] - common + _EPS)


def _suppressed(tile: Tensor, threshold: float) -> Tensor:
    """(n, 4) -> (n,) bool: boxes of a tile that others of the tile suppress."""
    iou = _iou(tile, tile)
    iou = torch.where(iou >= threshold, iou, 0.0).triu(1)  # row i may suppress column j > i
    if not len(tile):
        return iou.sum(0) > 0
    total = iou.sum()
    while True:
        sure = iou.amax(0) <= _STRONG
        free = (iou * sure[:, None]).amax(0) <= _STRONG
        iou = iou * free[:, None]
        before, total = total, iou.sum()
        if not before - total > _STRONG:
            return iou.sum(0) > 0
