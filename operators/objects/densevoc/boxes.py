"""Geometry of boxes: (..., 4) as x0, y0, x1, y1 in pixels, of any orientation of the axes (y, x works as well)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_DELTA = math.log(1000 / 16)
"""A box may grow by this factor's exponential in one decoding step, so that an early training step cannot overflow."""

BoxWeights = tuple[float, float, float, float]


def areas(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...), in square pixels; negative where one side is inverted."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersections(one: Tensor, other: Tensor) -> Tensor:
    """(..., N, 4), (..., M, 4) -> (..., N, M): common area of every pair, at least 0."""
    low = torch.maximum(one[..., :, None, :2], other[..., None, :, :2])
    high = torch.minimum(one[..., :, None, 2:], other[..., None, :, 2:])
    return (high - low).clamp(min=0).prod(-1)


def pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union (..., N, M) of every pair of (..., N, 4) and (..., M, 4); 0 where there is no union."""
    common = intersections(one, other)
    union = areas(one)[..., :, None] + areas(other)[..., None, :] - common
    return common / torch.where(union > 0, union, 1.0)


class Match(NamedTuple):
    """What each of M boxes overlaps most.

    Attributes:
        which: (..., M) int64, the first of the best.
        iou: (..., M), how much.
    """

    which: Tensor
    iou: Tensor


def best_match(truth: Tensor, boxes: Tensor) -> Match:
    """For every one of `boxes` (..., M, 4) the box of `truth` (..., N, 4) that it overlaps most; N at least 1."""
    iou, which = pairwise_iou(truth, boxes).max(-2)
    return Match(which, iou)


def _centers(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) -> centres and sizes, (..., 2) each."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sizes, sizes


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: BoxWeights) -> Tensor:
    """What must be added to `anchors` to get `boxes`: (..., 4) shifts of the centre and logarithms of growth.

    Values are infinite or NaN where a box or an anchor has no area.
    """
    (center, size), (anchor_center, anchor_size) = _centers(boxes), _centers(anchors)
    deltas = torch.cat([(center - anchor_center) / anchor_size, torch.log(size / anchor_size)], -1)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(deltas: Tensor, anchors: Tensor, weights: BoxWeights) -> Tensor:
    """The inverse of `encode_boxes`, with growth limited to `LARGEST_DELTA`; (..., 4) -> (..., 4)."""
    center, size = _centers(anchors)
    scaled = deltas / deltas.new_tensor(weights)
    moved = scaled[..., :2] * size + center
    grown = scaled[..., 2:].clamp(max=LARGEST_DELTA).exp() * size
    low = moved - 0.5 * grown
    return torch.cat([low, low + grown], -1)


def clip_boxes(boxes: Tensor, width: float, height: float) -> Tensor:
    """The part of every box within a picture of these sides; (..., 4) -> (..., 4)."""
    return torch.minimum(boxes, boxes.new_tensor([width, height, width, height])).clamp(min=0)
