"""Running averages of weights, which are what training keeps."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move ``average`` towards ``model`` after update number ``step`` (from 1).

    The memory is short at first, so that the start is forgotten; ``decay`` is what is kept later.
    """
    keep = min(decay, (1 + step) / (10 + step))
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1.0 - keep)
