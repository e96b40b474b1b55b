"""Captions of regions: what a captioner says when it sees the tokens of one object only.

A box is pooled from the tower's token grid by RoIAlign into a few tokens, its view. A track is told of from views of
up to a few frames, one after the other, as by the hard aggregation of Zhou et al., "Dense Video Object Captioning from
Disjoint Supervision" (2023), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..packets import FloatArray
from .bank import spread
from .densevoc.roi_align import roi_align

if TYPE_CHECKING:
    from ..caption.captioner import CaptionModel

__all__ = ["RegionCaptioner", "load_region_captioner", "region_tokens"]


def region_tokens(grid: FloatArray, boxes: FloatArray, size: int) -> FloatArray:
    """Pool boxes from a token grid: (N, size * size, D), bins row by row.

    Beyond the edge of the grid its outermost tokens go on: what is at the edge of the picture is no fainter.

    Args:
        grid: (h, w, D) tokens.
        boxes: (N, 4) x0 y0 x1 y1 as shares of the picture.
        size: bins along each side of a box.
    """
    height, width = grid.shape[:2]
    tokens = torch.from_numpy(np.array(grid, np.float32)).permute(2, 0, 1)[None]  # 1, D, h, w
    cells = torch.from_numpy(np.array(boxes, np.float32)) * torch.tensor([width, height] * 2)
    pooled: Tensor = roi_align([F.pad(tokens, (1, 1, 1, 1), mode="replicate")], cells[None] + 1, (1,), size)[0]
    return pooled.numpy()


class RegionCaptioner:
    """Describes objects from their views; it keeps no state between calls."""

    def __init__(self, captioner: CaptionModel, *, size: int = 4, views: int = 6) -> None:
        """Take a captioner of the tower's tokens.

        Args:
            captioner: reads at least `views * size * size` tokens.
            size: bins along each side of a box.
            views: frames that a caption is made from.
        """
        self.captioner, self.size, self.views = captioner, size, views

    def tokens(self, grid: FloatArray, boxes: FloatArray) -> FloatArray:
        """Views (N, R, D) of boxes (N, 4), shares of the picture, in one frame's tokens (h, w, D)."""
        return region_tokens(grid, boxes, self.size)

    def caption(self, tracks: Sequence[FloatArray]) -> list[tuple[str, float]]:
        """Text and score of each track's views (n, R, D), in the order of time; of more than `views`, some are read."""
        memories = [np.concatenate(spread(list(views), self.views)) for views in tracks]  # M, D each
        return [(texts[0].text, texts[0].probability) for texts in self.captioner.propose(memories)]


def load_region_captioner(
    captioner: str, tower: str | None = None, pretrained: str | None = None, device: str = "cpu"
) -> RegionCaptioner:
    """Load a captioner by name or folder.

    Raises:
        CaptionerError: there is no such captioner.
    """
    from ..caption.load import load_captioner

    return RegionCaptioner(load_captioner(captioner, device))
