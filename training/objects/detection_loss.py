"""Losses of the detector of Dense VOC: heatmaps and boxes of proposals, classes and boxes of regions."""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-6


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al., CVPR 2019) of boxes told by distances from one point.

    Args:
        boxes: (..., 4), how far left, up, right and down they reach.
        targets: (..., 4).

    Returns:
        (...), 0 to 2.
    """
    common = _area(torch.minimum(boxes, targets).unflatten(-1, (2, 2)).sum(-2).clamp(min=0))
    hull = _area(torch.maximum(boxes, targets).unflatten(-1, (2, 2)).sum(-2).clamp(min=0))
    union = _area(boxes.unflatten(-1, (2, 2)).sum(-2)) + _area(targets.unflatten(-1, (2, 2)).sum(-2)) - common
    return 1 - common / (union + _EPS) + (hull - union) / (hull + _EPS)


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]
