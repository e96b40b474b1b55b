"""RoIAlign in one gather against RoIAlign sample by sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.roi_align import box_levels, roi_align

STRIDES = (8, 16, 32)


def pyramid(batch: int = 2, channels: int = 3, side: int = 96) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(batch, channels, side // s, (side + 32) // s, generator=generator) for s in STRIDES]


def sample(level: Tensor, x: float, y: float) -> Tensor:
    """(C, h, w) at a place in cells; cells beyond the map are 0."""
    value = torch.zeros(level.shape[0])
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < level.shape[1] and 0 <= column < level.shape[2]:
                weight = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
                value += weight * level[:, row, column]
    return value


def slow(level: Tensor, box: Tensor, size: int) -> Tensor:
    """(C, h, w) and a box in cells -> (size * size, C)."""
    x0, y0, x1, y1 = box.tolist()
    wide, high = (x1 - x0) / size, (y1 - y0) / size
    bins = []
    for row in range(size):
        for column in range(size):
            at = [(x0 + (column + i) * wide, y0 + (row + j) * high) for i in (0.25, 0.75) for j in (0.25, 0.75)]
            bins.append(torch.stack([sample(level, *place) for place in at]).mean(0))
    return torch.stack(bins)


def test_sample_by_sample() -> None:
    """Inside, across every border, far outside, without area, inverted, and on all levels."""
    levels = pyramid()
    boxes = torch.tensor(
        [[10, 20, 50, 33], [-9, -4, 30, 11], [90, 80, 140, 120], [500, 500, 600, 600], [20, 20, 20, 20]]
        + [[60, 50, 20, 10], [0, 0, 128, 96], [-40, -30, 300, 260], [-200, -100, 900, 700]],
        dtype=torch.float32,
    )
    batch = torch.stack([boxes, boxes.flip(0)])
    chosen = box_levels(batch, STRIDES)
    assert set(chosen.unique().tolist()) == {0, 1, 2}
    pooled = roi_align(levels, batch, STRIDES, 3)
    for image in range(2):
        for number, box in enumerate(batch[image]):
            level = int(chosen[image, number])
            expected = slow(levels[level][image], box / STRIDES[level], 3)
            torch.testing.assert_close(pooled[image, number], expected, atol=1e-5, rtol=1e-5)


def test_levels_by_size() -> None:
    sides = torch.tensor([1.0, 111.9, 112.0, 223.9, 224.0, 448.0, 5000.0])
    boxes = torch.stack([torch.zeros(7), torch.zeros(7), sides, sides], -1)
    assert box_levels(boxes, STRIDES).tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert box_levels(boxes, STRIDES, canonical=112.0).tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_no_boxes() -> None:
    assert roi_align(pyramid(), torch.zeros(2, 0, 4), STRIDES, 3).shape == (2, 0, 9, 3)


def test_a_gradient_to_the_maps() -> None:
    levels = [level.double().requires_grad_() for level in pyramid(1, 2, 32)]
    boxes = torch.tensor([[[3.0, 5.0, 30.0, 41.0], [-3.0, 2.0, 9.0, 300.0]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *maps: roi_align(maps, boxes, STRIDES, 2), levels)


def test_a_broken_box_spoils_no_other() -> None:
    boxes = torch.tensor([[[10.0, 20.0, 50.0, 33.0], [float("nan")] * 4, [float("inf")] * 4]])
    pooled = roi_align(pyramid(1), boxes, STRIDES, 2)
    torch.testing.assert_close(pooled[:, :1], roi_align(pyramid(1), boxes[:, :1], STRIDES, 2))
    assert pooled.isfinite().all()
