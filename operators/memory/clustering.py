"""Clustering memory: any number of frames summarised in K tokens by weighted K-means, one small step per frame.

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024, section 3.1). The K centres of the memory, weighted
by how many tokens each stands for, are clustered again together with the N tokens of a new frame. The work per frame
and the size of the state do not grow with the length of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MemoryState:
    """The memory after some frames. Update functions return a new state and leave the old one as it is.

    Attributes:
        tokens: (M, D) float32, the centres; M = K once K tokens were seen, before that the tokens so far in order.
        counts: (M,) int32, how many tokens each centre stands for; centre k keeps row k for the whole stream.
        frames: number of frames seen.
    """

    tokens: Tensor
    counts: Tensor
    frames: int = 0


@dataclass(frozen=True)
class StreamingKMeans:
    """The streaming update and its settings.

    Attributes:
        size: K, tokens of a full memory; a multiple of the tokens per frame.
        iterations: K-means steps per frame.
        momentum: centres weigh as much as the tokens they stand for; without it every row weighs one.
    """

    size: int
    iterations: int = 2
    momentum: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.size < 1 or self.iterations < 1:
            raise ValueError(f"size {self.size} and iterations {self.iterations} must both be at least 1")

    def initial_state(self, width: int) -> MemoryState:
        """The memory before the first frame, for tokens of `width` D."""
        return MemoryState(torch.zeros(0, width), torch.zeros(0, dtype=torch.int32))

    def ready(self, state: MemoryState) -> bool:
        """Whether the memory holds its K tokens; the reference has no memory before."""
        return state.tokens.shape[0] == self.size

    def update(self, state: MemoryState, frame: Tensor) -> MemoryState:
        """The memory after one more frame (N, D) float32.

        Raises:
            ValueError: the frame has another width than the state, or K is not a multiple of N.
        """
        self._check(state, frame)
        if not self.ready(state):
            ones = torch.ones(frame.shape[0], dtype=torch.int32)
            return MemoryState(torch.cat([state.tokens, frame]), torch.cat([state.counts, ones]), state.frames + 1)
        data = torch.cat([state.tokens, frame])  # K + N, D: the old centres are data points too
        weights = torch.ones(data.shape[0], dtype=torch.int32)
        if self.momentum:
            weights[: self.size] = state.counts
        centers, counts = kmeans(state.tokens, data, weights, self.iterations)
        return MemoryState(centers, counts, state.frames + 1)

    def _check(self, state: MemoryState, frame: Tensor) -> None:
        if frame.ndim != 2 or frame.shape[1] != state.tokens.shape[1]:
            raise ValueError(
                f"a frame of shape {tuple(frame.shape)} does not fit a memory of width {state.tokens.shape[1]}; "
                "pass (tokens, width)"
            )
        if frame.shape[0] == 0 or self.size % frame.shape[0]:
            raise ValueError(
                f"memory size {self.size} is not a multiple of the {frame.shape[0]} tokens per frame; "
                f"choose for example {2 * frame.shape[0] or 98}"
            )


def kmeans(centers: Tensor, data: Tensor, weights: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Weighted K-means from given centres, with a fixed number of steps.

    A centre to which no weight was assigned keeps its place with count zero. Gradients flow through the averages.

    Args:
        centers: (K, D) float32 starting centres.
        data: (n, D) float32 points.
        weights: (n,) integer weights, zero allowed.
        iterations: number of steps.

    Returns:
        Centres (K, D) and the weight (K,) int32 assigned to each in the last step.
    """
    weights = weights.to(torch.int32)
    counts = torch.zeros(centers.shape[0], dtype=torch.int32)
    rows = torch.arange(data.shape[0])
    for _ in range(iterations):
        nearest = assign(data, centers)
        counts = torch.zeros_like(counts).index_add_(0, nearest, weights)
        membership = data.new_zeros(centers.shape[0], data.shape[0])  # K, n
        membership[nearest, rows] = weights.to(data.dtype)
        means = (membership @ data) / counts.clamp(min=1)[:, None]
        centers = torch.where(counts[:, None] != 0, means, centers)
    return centers, counts


def assign(data: Tensor, centers: Tensor) -> Tensor:
    """Index (n,) int64 of the nearest centre of each point by `distance`, the lowest index where several are equal.

    One matrix product ranks all pairs; only those that its rounding error could confuse are measured explicitly. The
    result is therefore the explicit formula's, at a fraction of its time.
    """
    with torch.no_grad():
        center_square = centers.square().sum(1)
        score = torch.addmm(center_square, data, centers.T, alpha=-2.0)  # squared distance less |x|^2
        # Worst-case rounding of a product of length D and of the explicit sum grows with (|x| + |c|)^2.
        reach = data.norm(dim=1)[:, None] + center_square.sqrt()
        slack = reach.square_().mul_((data.shape[1] + 8) * torch.finfo(data.dtype).eps)
        near = score - slack <= (score + slack).amin(1, keepdim=True)
        # Rows with one candidate are settled; `row` repeats for the others.
        near &= (near.sum(1) > 1)[:, None]
        row, column = near.nonzero(as_tuple=True)
        if row.numel() == 0:
            return score.argmin(1)
        exact = torch.full_like(score, torch.inf)
        exact[row, column] = distance(data[row], centers[column])
        # argmin takes the first of equal values.
        return torch.where(near.any(1), exact.argmin(1), score.argmin(1))


def distance(points: Tensor, centers: Tensor) -> Tensor:
    """Euclidean distance along the last dimension by explicit difference, the definition `assign` follows."""
    return (points - centers).square().sum(-1).sqrt()
