"""RoIAlign (He et al., "Mask R-CNN", 2017) on the levels of a pyramid, in one gather.

Every bin averages samples, 2 x 2 of them in all models, each interpolated between four cells. What lies beyond a map
counts as 0, as in the reference of Dense VOC; other implementations take the border's cell there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .boxes import areas

_CANONICAL_LEVEL = 4
"""Level (stride 16) of a box of the canonical size, eq. 1 of "Feature Pyramid Networks" (Lin et al. 2017)."""


def box_levels(boxes: Tensor, strides: Sequence[int], canonical: float = 224.0) -> Tensor:
    """Which of the levels each box is pooled from: (..., 4) pixels -> (...) int64, an index into `strides`.

    Args:
        boxes: in pixels.
        strides: of the levels, powers of two, each twice the one before.
        canonical: side in pixels of the boxes that belong to stride 16 (and up to twice that side).
    """
    first = int(math.log2(strides[0]))
    sides = areas(boxes).clamp(min=0).sqrt()
    level = (_CANONICAL_LEVEL + torch.log2(sides / canonical + 1e-8)).floor()
    return level.nan_to_num(nan=first).clamp(first, first + len(strides) - 1).long() - first


def roi_align(
    levels: Sequence[Tensor],
    boxes: Tensor,
    strides: Sequence[int],
    size: int,
    canonical: float = 224.0,
    *,
    samples: int = 2,
) -> Tensor:
    """Features of boxes, each from the level that fits its size.

    Args:
        levels: L maps (B, C, h, w), fine to coarse.
        boxes: (B, N, 4) in pixels; no gradient goes to them.
        strides: L, see `box_levels`.
        size: r, bins along each side of a box.
        canonical: see `box_levels`.
        samples: along each side of a bin.

    Returns:
        (B, N, r * r, C), bins row by row.
    """
    batch, count = boxes.shape[:2]
    boxes = boxes.detach().float()
    chosen = box_levels(boxes, strides, canonical)  # B, N
    table = torch.cat([level.flatten(2).transpose(1, 2).flatten(0, 1) for level in levels])  # sum of B * h * w, C
    shapes = torch.tensor([level.shape[2:] for level in levels], device=boxes.device)  # L, 2
    cells = shapes.prod(1)
    first = F.pad((cells * batch).cumsum(0), (1, 0))[:-1]  # row of the table at which each level begins
    image = torch.arange(batch, device=boxes.device)[:, None]
    start = first[chosen] + image * cells[chosen]  # B, N
    scaled = boxes / boxes.new_tensor(strides)[chosen][..., None]
    height, width = shapes[chosen].unbind(-1)
    rows, row_weights = _taps(scaled[..., 1], scaled[..., 3], height, size, samples)
    columns, column_weights = _taps(scaled[..., 0], scaled[..., 2], width, size, samples)
    # B, N, r, r, taps of a row, taps of a column
    index = rows[:, :, :, None, :, None] * width[..., None, None, None, None] + columns[:, :, None, :, None, :]
    index = index + start[..., None, None, None, None]
    weights = row_weights[:, :, :, None, :, None] * column_weights[:, :, None, :, None, :]
    taps = (2 * samples) ** 2
    weights = weights.reshape(-1, taps).to(table.dtype)
    pooled = F.embedding_bag(index.reshape(-1, taps), table, mode="sum", per_sample_weights=weights)
    return pooled.view(batch, count, size * size, table.shape[1])


def _taps(low: Tensor, high: Tensor, length: Tensor, size: int, samples: int) -> tuple[Tensor, Tensor]:
    """Cells along one axis that a bin reads, and how much of each.

    Args:
        low: (B, N), where boxes begin, in cells.
        high: (B, N), where they end.
        length: (B, N) int64, cells of the map.
        size: r.
        samples: of a bin.

    Returns:
        Cells and weights, (B, N, r, 2 * samples) each; weights of cells beyond the map are 0.
    """
    count = size * samples
    places = (torch.arange(count, device=low.device, dtype=low.dtype) + 0.5) / count
    at = low[..., None] + places * (high - low)[..., None] - 0.5  # centre of cell i is i + .5
    before = at.floor()
    cell = torch.stack([before, before + 1], -1)
    weight = (1 - (at[..., None] - cell).abs()) / samples
    inside = (cell >= 0) & (cell < length[..., None, None])
    shape = (*low.shape, size, 2 * samples)
    return torch.where(inside, cell, 0.0).long().view(shape), torch.where(inside, weight, 0.0).view(shape)
