"""The memories that the clustering memory was compared with (Zhou et al., CVPR 2024, table 2), for whole videos.

Every function takes the tokens of one video, (T, N, D) float32, and returns the memory that the paper's models decode
from; the `checkpoint` forms give one memory per decoding point, over all frames up to it. They are for measuring, and
for checkpoints trained with them; streams use `clustering`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .clustering import kmeans

Summary = Callable[[Tensor], Tensor]
"""(T, N, D) tokens of a video to (M, D) memory tokens."""


def keep_all(tokens: Tensor) -> Tensor:
    """`none`: all T * N tokens."""
    return tokens.flatten(0, 1)


def temporal_mean(tokens: Tensor) -> Tensor:
    """`temporal_mean_pool`: the mean over the frames, N tokens."""
    return tokens.mean(0)


def running_temporal_mean(tokens: Tensor) -> Tensor:
    """`temporal_mean_pool` after every frame: (T, N, D)."""
    frames = torch.arange(1, tokens.shape[0] + 1, dtype=tokens.dtype, device=tokens.device)
    return tokens.cumsum(0) / frames[:, None, None]


def spatial_mean(tokens: Tensor) -> Tensor:
    """`spatial_mean_pool`: the mean of each frame, T tokens."""
    return tokens.mean(1)


def exponential_mean(tokens: Tensor, decay: float = 0.9) -> Tensor:
    """`ema`: `decay` of the past plus the rest of the new frame, starting from the first frame; N tokens."""
    memory = tokens[0]
    for frame in tokens[1:]:
        memory = decay * memory + (1.0 - decay) * frame
    return memory


def offline_kmeans(tokens: Tensor, size: int, iterations: int = 2) -> Tensor:
    """`kmeans` of the paragraph model: one clustering of all tokens from the first `size` of them, (K, D)."""
    flat = tokens.flatten(0, 1)
    weights = torch.ones(flat.shape[0], dtype=torch.int32, device=flat.device)
    return kmeans(flat[:size], flat, weights, iterations)[0]


def adjacent_merge_memory(tokens: Tensor, size: int) -> Tensor:
    """`adjacent_tome`: the first `size` tokens, then `adjacent_merge` for each of the others, (K, D)."""
    flat = tokens.flatten(0, 1)
    weights = torch.ones(size, dtype=torch.int32, device=tokens.device)
    return adjacent_merge(flat[:size], flat[size:], weights)[0]


def adjacent_merge(buffer: Tensor, new_tokens: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Take new tokens one by one into a full buffer by merging its two most alike neighbours.

    The new token stands at the end for the comparison. The first closest pair (i, i + 1) becomes its weighted mean in
    slot i, and the new token then takes slot i + 1 rather than the end: the order is that of the reference, which is
    no longer that of time.

    Args:
        buffer: (K, D) float32.
        new_tokens: (n, D) float32, n may be zero.
        weights: (K,) int32 tokens each row stands for; None = every merge is a plain mean.

    Returns:
        The buffer (K, D) and its weights (K,) int32, None if none were given; without gradient.
    """
    size = buffer.shape[0]
    with torch.no_grad():
        rows = torch.cat([buffer, buffer[-1:]])
        counts = torch.ones(size + 1, dtype=torch.int32, device=buffer.device)
        if weights is not None:
            counts[:size] = weights
        for token in new_tokens:
            rows[size] = token
            pair = int(paired_cosine_distance(rows[:-1], rows[1:]).argmin())
            both = counts[pair : pair + 2]
            rows[pair] = (rows[pair : pair + 2] * both[:, None]).sum(0) / both.sum()
            rows[pair + 1] = token
            if weights is not None:
                counts[pair] = both.sum()
                counts[pair + 1] = 1
    return rows[:size], None if weights is None else counts[:size]


def paired_cosine_distance(first: Tensor, second: Tensor) -> Tensor:
    """1 - cosine of each pair of rows: (n, D), (n, D) -> (n,); 1 for a zero row."""
    norms = first.norm(dim=-1) * second.norm(dim=-1)
    cosine: Tensor = (first * second).sum(-1) / (norms + 1e-8)
    return 1.0 - cosine


def checkpoint_frames(frames: int, points: int) -> list[int]:
    """How many frames each of `points` decoding points has seen: multiples of `frames // points`."""
    stride = frames // points
    return [(point + 1) * stride for point in range(points)]


def at_checkpoints(tokens: Tensor, points: int, summary: Summary) -> list[Tensor]:
    """`fixed_checkpoints`: the memory of all frames up to each decoding point, made from scratch."""
    return [summary(tokens[:seen]) for seen in checkpoint_frames(tokens.shape[0], points)]


def checkpoint_temporal_mean(tokens: Tensor, points: int) -> list[Tensor]:
    """`temporal_mean_pool` with `fixed_checkpoints`: the mean over the spans between points, not over the frames."""
    per_span = tokens.reshape(points, -1, tokens.shape[-1])  # P, tokens per span, D
    return list(running_temporal_mean(per_span))
