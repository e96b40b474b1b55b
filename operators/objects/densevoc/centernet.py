"""The first stage: class-agnostic proposals of CenterNet (Zhou et al., "Probabilistic two-stage detection", 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ProposalConfig
from .nms import padded_nms

_EPS = 1e-6
_START_REACH = 8.0
"""Strides that an untrained head's boxes reach in each direction."""
_START_LOGIT = -4.6
"""Of an untrained head's heatmap: .01, so that the many cells without an object do not swamp the first steps."""


class ProposalMaps(NamedTuple):
    """What the head says of every cell.

    Attributes:
        heatmaps: L logits (B, 1, h, w) that a cell is the centre of an object.
        reaches: L times (B, 4, h, w), how far its box reaches left, up, right and down, in strides of the level.
    """

    heatmaps: list[Tensor]
    reaches: list[Tensor]

    def flat(self) -> tuple[Tensor, Tensor]:
        """All levels one after another, row by row: heatmaps (B, m) and reaches (B, m, 4)."""
        heatmap = torch.cat([level.flatten(1) for level in self.heatmaps], 1)
        reach = torch.cat([level.flatten(2) for level in self.reaches], 2)
        return heatmap, reach.transpose(1, 2)

    def shapes(self) -> list[tuple[int, int]]:
        """(h, w) of each level."""
        return [(level.shape[2], level.shape[3]) for level in self.heatmaps]


class Proposals(NamedTuple):
    """Where objects may be.

    Attributes:
        boxes: (B, K, 4) in pixels.
        scores: (B, K), falling; 0 on places that no proposal needed, whose boxes repeat the weakest candidate's.
    """

    boxes: Tensor
    scores: Tensor


class Scale(nn.Module):
    """A learnt factor."""

    def __init__(self) -> None:
        """A factor of 1."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * self.scale


class CenterNetHead(nn.Module):
    """A tower of convolutions that all levels share, and two predictions from it."""

    def __init__(self, config: ProposalConfig, channels: int, levels: int) -> None:
        """Random weights, drawn as the reference draws them.

        Args:
            config: sizes of the head.
            channels: C, of the pyramid.
            levels: of the pyramid.
        """
        super().__init__()
        tower: list[nn.Module] = []
        for number in range(config.num_layers):
            inputs = channels if number == 0 else config.width
            tower += [nn.Conv2d(inputs, config.width, 3, padding=1)]
            tower += [nn.GroupNorm(config.groups, config.width, eps=_EPS), nn.ReLU()]
        self.bbox_tower = nn.Sequential(*tower)
        width = config.width if config.num_layers else channels
        self.bbox_pred = nn.Conv2d(width, 4, 3, padding=1)
        self.agn_hm = nn.Conv2d(width, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None and not module.weight.is_meta:
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        if not self.agn_hm.weight.is_meta and self.bbox_pred.bias is not None and self.agn_hm.bias is not None:
            nn.init.constant_(self.bbox_pred.bias, _START_REACH)
            nn.init.constant_(self.agn_hm.bias, _START_LOGIT)

    def forward(self, levels: Sequence[Tensor]) -> ProposalMaps:
        """Levels (B, C, h, w), fine to coarse."""
        maps = ProposalMaps([], [])
        for level, scale in zip(levels, self.scales, strict=True):
            shared = self.bbox_tower(level)
            maps.heatmaps.append(self.agn_hm(shared))
            maps.reaches.append(F.relu(scale(self.bbox_pred(shared))))
        return maps


def cell_centers(shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device) -> Tensor:
    """Where the cells of all levels lie, row by row: (m, 2) as x, y in pixels."""
    grids = []
    for (height, width), stride in zip(shapes, strides, strict=True):
        y = torch.arange(height, device=device) * stride + stride // 2
        x = torch.arange(width, device=device) * stride + stride // 2
        grids.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1))
    return torch.cat(grids).float()


def cell_strides(shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device) -> Tensor:
    """The stride of every cell of all levels, (m,) float32."""
    cells = torch.tensor([height * width for height, width in shapes], device=device)
    return torch.tensor(strides, dtype=torch.float32, device=device).repeat_interleave(cells)


def find_peaks(maps: ProposalMaps, strides: Sequence[int], limit: int) -> Proposals:
    """The cells with the highest heatmaps and their boxes, not clipped: (B, k, 4) and (B, k), falling scores.

    Equal scores keep the order of the cells. At most all cells but one are taken, as in the reference.
    """
    heatmap, reach = maps.flat()
    scores, index = torch.sort(heatmap.sigmoid(), dim=1, descending=True, stable=True)
    count = max(1, min(limit, heatmap.shape[1] - 1))
    scores, index = scores[:, :count], index[:, :count]
    centers = cell_centers(maps.shapes(), strides, heatmap.device)[index]  # B, k, 2
    stride = cell_strides(maps.shapes(), strides, heatmap.device)[index]  # B, k
    reach = reach.gather(1, index[..., None].expand(-1, -1, 4)) * stride[..., None]
    return Proposals(torch.cat([centers - reach[..., :2], centers + reach[..., 2:]], -1), scores)


def keep_proposals(peaks: Proposals, limit: int, threshold: float) -> Proposals:
    """`limit` of the peaks of every picture that do not overlap too much, not clipped."""
    boxes, scores = [], []
    for box, score in zip(peaks.boxes, peaks.scores, strict=True):
        kept = padded_nms(box, limit, threshold)
        boxes.append(box[kept.which])
        scores.append(score[kept.which] * kept.valid)
    return Proposals(torch.stack(boxes), torch.stack(scores))
