"""What the detector of Dense VOC is trained towards: heatmaps and boxes for cells, matches for regions.

True boxes come as (B, G, 4) in pixels, filled up with zeros; a box without area stands for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.boxes import areas, best_match
from onlooker.operators.objects.densevoc.centernet import cell_centers, cell_strides

FAR = 1e8
"""Weighted distance of a cell to an object that it has nothing to do with."""
IGNORE, NEGATIVE, POSITIVE = -1, 0, 1
_NEAREST = 1e-6
_LARGEST = 50000.0

Range = tuple[float, float]


class CellTargets(NamedTuple):
    """What the maps of all levels should say, cells one after another.

    Attributes:
        heatmap: (B, m), 1 exactly where an object of the level has its centre, falling off around centres.
        reach: (B, m, 4), how far the cell's object reaches left, up, right and down, in strides; negative where a cell
            has no object.
        peak: (B, m) int64, the true box that the heatmap is of.
        owner: (B, m) int64, the true box that `reach` is of; any where there is none.
    """

    heatmap: Tensor
    reach: Tensor
    peak: Tensor
    owner: Tensor


def level_ranges(strides: Sequence[int]) -> tuple[Range, ...]:
    """Half diagonals in pixels of the objects of each level: 2 to 5 strides, from 0 and to the largest.

    Ranges overlap: objects between them belong to two levels.
    """
    ranges = [(2.0 * stride, 5.0 * stride) for stride in strides]
    ranges[0] = (0.0, ranges[0][1])
    ranges[-1] = (ranges[-1][0], _LARGEST)
    return tuple(ranges)


def cell_targets(
    truth: Tensor,
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    ranges: Sequence[Range],
    *,
    overlap: float = 0.8,
    radius: float = 4.0,
) -> CellTargets:
    """Targets of the proposal head (Zhou et al., "Objects as points", 2019, with levels).

    Args:
        truth: (B, G, 4), true boxes.
        shapes: (h, w) of each level.
        strides: of each level.
        ranges: half diagonals of the objects of each level, see `level_ranges`.
        overlap: a centre may be off by so much that the shifted box still overlaps like this; the heatmap is broader
            for larger objects accordingly.
        radius: least breadth of the heatmap around a centre, in pixels.
    """
    centers = cell_centers(shapes, strides, truth.device)
    stride = cell_strides(shapes, strides, truth.device)
    cells = torch.tensor([height * width for height, width in shapes], device=truth.device)
    limits = truth.new_tensor(ranges).repeat_interleave(cells, 0)  # m, 2
    spread = 2 * ((1 - overlap) / (1 + overlap)) ** 2
    targets = [_picture_targets(boxes, centers, stride, limits, spread, radius) for boxes in truth]
    return CellTargets(*(torch.stack(parts) for parts in zip(*targets, strict=True)))


def _picture_targets(
    boxes: Tensor, centers: Tensor, stride: Tensor, limits: Tensor, spread: float, radius: float
) -> CellTargets:
    """Of one picture: boxes (G, 4), cells (m, ...) -> (m, ...)."""
    reach = torch.cat([centers[:, None] - boxes[:, :2], boxes[:, 2:] - centers[:, None]], -1)  # m, G, 4
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2  # G, 2
    steps = stride[:, None, None]
    middle_cell = (middle / steps).trunc() * steps + steps / 2  # m, G, 2: where the level's cell of the middle lies
    half_diagonal = (reach[..., :2] + reach[..., 2:]).square().sum(-1).sqrt() / 2
    level = (half_diagonal >= limits[:, :1]) & (half_diagonal <= limits[:, 1:])  # m, G
    area = areas(boxes)
    exists = (area > 0).expand(level.shape)
    offset = centers[:, None] - middle_cell
    peak = (offset == 0).all(-1) & level
    near = (offset.abs() <= steps).all(-1) & (reach.amin(-1) > 0) & level & exists
    distance = (centers[:, None] - middle).square().sum(-1) / (spread * area).clamp(min=radius**2)
    distance = torch.where(peak, 0.0, distance.clamp(min=_NEAREST))
    distance = torch.where(exists, distance, FAR)
    closest, peak = distance.min(1)
    nearest, owner = torch.where(near, distance, FAR).min(1)
    own = reach[torch.arange(len(centers), device=boxes.device), owner]
    own = torch.where((nearest == FAR)[:, None], -FAR, own) / stride[:, None]
    return CellTargets(torch.exp(-closest), own, peak, owner)


def label_overlaps(iou: Tensor, thresholds: Sequence[float], labels: Sequence[int]) -> Tensor:
    """The label of every overlap (...): `labels[i]` below `thresholds[i]`, the last one from the last threshold on."""
    bounds = iou.new_tensor(thresholds)
    return torch.tensor(labels, device=iou.device)[torch.bucketize(iou, bounds, right=True)]


class Matched(NamedTuple):
    """Regions and what they should say.

    Attributes:
        regions: (B, N, 4).
        which: (B, N) int64, the true box that each overlaps most.
        boxes: (B, N, 4), that box.
        classes: (B, N) int64, its class counted from 1; 0 for the background.
    """

    regions: Tensor
    which: Tensor
    boxes: Tensor
    classes: Tensor


def object_classes(truth: Tensor, classes: Tensor | None = None) -> Tensor:
    """Classes (B, G) counted from 1, and 0 for boxes that only fill up; without `classes` there is only one."""
    real = (truth.amax(-1) > 0).long()
    return real if classes is None else classes + real


def match_regions(regions: Tensor, truth: Tensor, classes: Tensor, threshold: float) -> Matched:
    """Every region with the true box that it overlaps most, an object from `threshold` on.

    Args:
        regions: (B, N, 4).
        truth: (B, G, 4), G at least 1.
        classes: (B, G) of `object_classes`.
        threshold: least overlap with an object.
    """
    match = best_match(truth, regions)
    found = torch.where(match.iou >= threshold, classes.gather(1, match.which), 0)
    boxes = truth.gather(1, match.which[..., None].expand(-1, -1, 4))
    return Matched(regions, match.which, boxes, found)


def sample_regions(
    proposals: Tensor,
    truth: Tensor,
    classes: Tensor,
    *,
    threshold: float,
    count: int,
    positive_fraction: float,
    generator: torch.Generator | None = None,
) -> Matched:
    """A random part of the proposals and of all true boxes, objects first.

    Args:
        proposals: (B, K, 4).
        truth: (B, G, 4), G at least 1.
        classes: (B, G) of `object_classes`.
        threshold: overlap from which a region is an object.
        count: regions to take.
        positive_fraction: at most this part of them are objects, as far as there are others.
        generator: of the random order.
    """
    candidates = torch.cat([proposals.detach(), truth], 1)
    match = best_match(truth, candidates)
    labels = label_overlaps(match.iou, (threshold,), (NEGATIVE, POSITIVE))
    real = ((candidates >= 0) | (candidates != candidates[..., :1])).any(-1)
    labels = torch.where(real, labels, IGNORE)
    labels = limit_labels(labels, POSITIVE, int(count * positive_fraction), generator)
    order = _shuffled(labels, generator)[:, :count].sort(1).values  # the best labels, then in their own order again
    order = order.gather(1, labels.gather(1, order).sort(dim=1, descending=True, stable=True).indices)
    found = match_regions(candidates.gather(1, order[..., None].expand(-1, -1, 4)), truth, classes, threshold)
    return found._replace(classes=torch.where(labels.gather(1, order) == POSITIVE, found.classes, 0))


def limit_labels(labels: Tensor, label: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Labels (B, N) in which only `count` of each row, drawn at random, still have `label`; the others are ignored."""
    has = labels == label
    rank = torch.empty_like(labels)
    places = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    rank.scatter_(1, _shuffled(has.long(), generator), places)
    return torch.where(has & (rank >= count), IGNORE, labels)


def _shuffled(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """(B, N) indices by falling value, equal ones in random order."""
    noise = torch.rand(values.shape, generator=generator).to(values.device)
    mixed = noise.argsort(1)
    return mixed.gather(1, values.gather(1, mixed).sort(dim=1, descending=True, stable=True).indices)
