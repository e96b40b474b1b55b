"""Where in time the centres of a memory stand, in the terms of the time tokens a captioner has to write.

If what a centre stands for was in view without a break, its tokens' times are spread evenly over [start, end], and

    start = mean - sqrt(3) * deviation,    end = mean + sqrt(3) * deviation.

Both are measured in bins of the time tokens and told as smooth one-hot vectors, so that the decoder has to copy them
rather than to calculate. This is ours: a memory without it says what was seen, but hardly when.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def span_features(times: Tensor, age: Tensor | float, bins: int) -> Tensor:
    """Start and end of what each centre stands for.

    Args:
        times: (..., M, 2) float32, mean and standard deviation of the times of its tokens since the memory began.
        age: of the memory at the decoding point, that is where the last time token stands; (...) or one number, in
            the same unit.
        bins: Q, number of time tokens.

    Returns:
        (..., M, 2 Q) float32 in 0 .. 1.
    """
    mean, deviation = times.unbind(-1)
    half = math.sqrt(3.0) * deviation
    edges = torch.stack([mean - half, mean + half], -1)  # ..., M, 2
    age = torch.as_tensor(age, dtype=times.dtype, device=times.device)[..., None, None]
    position = edges / age * (bins - 1)
    offset = position[..., None] - torch.arange(bins, dtype=times.dtype, device=times.device)
    return torch.exp(-0.5 * offset**2).flatten(-2)


def with_spans(memory: Tensor, times: Tensor, age: Tensor | float, bins: int) -> Tensor:
    """Memory tokens (..., M, D) as a decoder with spans takes them: (..., M, D + 2 Q); see `span_features`."""
    return torch.cat([memory, span_features(times, age, bins).to(memory.dtype)], -1)
