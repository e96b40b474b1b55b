"""When the tokens behind each centre of a memory were seen.

A centre is an average, so it can carry along the averages of t and t^2 of its tokens, from which their mean time and
its spread follow. They take no part in the clustering (`StreamingKMeans.carried`). This is ours: the paper gives tokens
the embedding of their frame's number, which a stream without end does not have.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOMENTS = 2
"""Values that a token carries: its time t and t^2."""


def with_moments(tokens: Tensor, times: Tensor) -> Tensor:
    """Tokens (..., T, N, D) of frames at `times` (T,), in any unit, that carry their moments: (..., T, N, D + 2)."""
    moments = torch.stack([times, times * times], -1).to(tokens)  # T, 2
    return torch.cat([tokens, moments[:, None].expand(*tokens.shape[:-1], MOMENTS)], -1)


def split_moments(centers: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (..., D + 2) as they are without moments (..., D), and their times (..., 2).

    The times are mean and standard deviation in the unit that `with_moments` was given.
    """
    centers, mean, square = centers[..., :-MOMENTS], centers[..., -2], centers[..., -1]
    # Rounding may leave a square of the mean that is larger than the mean of the squares.
    return centers, torch.stack([mean, (square - mean * mean).clamp(min=0).sqrt()], -1)
