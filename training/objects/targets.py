"""What the detector of Dense VOC is trained towards: heatmaps and boxes for cells, matches for proposals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def label_overlaps(iou: Tensor, thresholds: Sequence[float], labels: Sequence[int]) -> Tensor:
    """The label of every overlap (...): `labels[i]` below `thresholds[i]`, the last one from the last threshold on."""
    bounds = iou.new_tensor(thresholds)
    return torch.tensor(labels, device=iou.device)[torch.bucketize(iou, bounds, right=True)]
