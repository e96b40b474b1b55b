"""Clustering memory: any number of frames summarised in K tokens by weighted K-means, one small step per frame.

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024, section 3.1). The K centres of the memory, weighted
by how many tokens each stands for, are clustered again together with the N tokens of a new frame. The work per frame
and the size of the state do not grow with the length of the stream.

Everything takes leading dimensions for several memories at once. A memory's values do not depend on the others in the
call, on the CPU not in a single bit: see `nearest` for the assignments; averages add up row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .nearest import Points


@dataclass(frozen=True)
class MemoryState:
    """The memory after some frames. Update functions return a new state and leave the old one as it is.

    Attributes:
        tokens: (..., M, D) float32, the centres; M = K once K tokens were seen, before that the tokens so far in order.
        counts: (..., M) int32, how many tokens each centre stands for; centre k keeps row k for the whole stream.
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
        carried: the last so many of the D values of a token are averaged with the rest but decide nothing: what is
            known of a token beside its looks, as its time.
    """

    size: int
    iterations: int = 2
    momentum: bool = True
    carried: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.carried < 0:
            raise ValueError(f"carried {self.carried} must be a number of values")
        if self.size < 1 or self.iterations < 1:
            raise ValueError(f"size {self.size} and iterations {self.iterations} must both be at least 1")

    def initial_state(self, width: int, *batch: int, device: torch.device | str | None = None) -> MemoryState:
        """The memory before the first frame, for tokens of `width` D; with `batch` sizes a block of such memories."""
        tokens = torch.zeros(*batch, 0, width, device=device)
        return MemoryState(tokens, torch.zeros(*batch, 0, dtype=torch.int32, device=device))

    def ready(self, state: MemoryState) -> bool:
        """Whether the memory holds its K tokens; the reference has no memory before."""
        return state.tokens.shape[-2] == self.size

    def update(self, state: MemoryState, frame: Tensor) -> MemoryState:
        """The memory after one more frame (..., N, D) float32; gradients flow to the frame and to the old memory.

        Raises:
            ValueError: the frame has another width or other leading dimensions than the state, or K is not a multiple
                of N.
        """
        self._check(state, frame)
        data = torch.cat([state.tokens, frame], -2)  # ..., M + N, D: the old centres are data points too
        ones = state.counts.new_ones(frame.shape[:-1])
        if not self.ready(state):
            return MemoryState(data, torch.cat([state.counts, ones], -1), state.frames + 1)
        weights = torch.cat([state.counts if self.momentum else torch.ones_like(state.counts), ones], -1)
        centers, counts = kmeans(state.tokens, data, weights, self.iterations, self.carried)
        return MemoryState(centers, counts, state.frames + 1)

    def update_all(self, states: Sequence[MemoryState], frames: Sequence[Tensor]) -> list[MemoryState]:
        """`update` for every state and its frame (N, D); full memories of equal shape go through one call.

        The states need not have seen equally many frames. Each gets tensors of its own, so that it can outlive the
        others of its group without their storage.
        """
        updated: list[MemoryState] = list(states)
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, (state, frame) in enumerate(zip(states, frames, strict=True)):
            alone = () if self.ready(state) else (index,)  # only room is filled: nothing to gain
            groups.setdefault((state.tokens.shape, frame.shape, *alone), []).append(index)
        for members in groups.values():
            if len(members) == 1:
                updated[members[0]] = self.update(states[members[0]], frames[members[0]])
                continue
            together = MemoryState(
                torch.stack([states[i].tokens for i in members]), torch.stack([states[i].counts for i in members])
            )
            result = self.update(together, torch.stack([frames[i] for i in members]))
            for index, tokens, counts in zip(members, result.tokens, result.counts, strict=True):
                updated[index] = MemoryState(tokens.clone(), counts.clone(), states[index].frames + 1)
        return updated

    def _check(self, state: MemoryState, frame: Tensor) -> None:
        held = state.tokens.shape
        if frame.ndim != len(held) or (*frame.shape[:-2], frame.shape[-1]) != (*held[:-2], held[-1]):
            leading = "".join(f"{size}, " for size in held[:-2])
            raise ValueError(
                f"a frame of shape {tuple(frame.shape)} does not fit a memory of width {held[-1]}; "
                f"pass ({leading}tokens, {held[-1]})"
            )
        count = frame.shape[-2]
        if count == 0 or self.size % count:
            raise ValueError(
                f"memory size {self.size} is not a multiple of the {count} tokens per frame; "
                f"choose for example {2 * count or 98}"
            )


def kmeans(centers: Tensor, data: Tensor, weights: Tensor, iterations: int, carried: int = 0) -> tuple[Tensor, Tensor]:
    """Weighted K-means from given centres, with a fixed number of steps.

    A centre to which no weight was assigned keeps its place with count zero. Gradients flow through the averages, not
    through the assignments.

    Args:
        centers: (..., K, D) float32 starting centres.
        data: (..., n, D) float32 points.
        weights: (..., n) integer weights, zero allowed.
        iterations: number of steps.
        carried: trailing values of the D that take no part in distances.

    Returns:
        Centres (..., K, D) and the weight (..., K) int32 assigned to each in the last step.
    """
    size, width = centers.shape[-2:]
    problems = centers.shape[:-2].numel()
    compared = width - carried
    points = Points(data[..., :compared].contiguous())
    weights = weights.to(torch.int32)
    weighted = (data * weights[..., None]).reshape(-1, width)  # B * n, D
    first_slot = torch.arange(problems, device=data.device).view(*centers.shape[:-2], 1) * size
    shape, flat = centers.shape, centers.reshape(-1, width)  # B * K, D
    counts = weights.new_zeros(len(flat))
    for _ in range(iterations):
        nearest = points.nearest(flat.view(shape)[..., :compared].contiguous())
        slot = (nearest + first_slot).flatten()  # B * n, rows of all problems' centres
        counts = torch.zeros_like(counts).index_add_(0, slot, weights.flatten())
        means = _add_rows(weighted, slot, len(flat)).div_(counts.clamp(min=1)[:, None])
        empty = (counts == 0).nonzero().squeeze(1)
        flat = means.index_copy_(0, empty, flat.index_select(0, empty))
    return flat.view(shape), counts.view(shape[:-1])


def _add_rows(rows: Tensor, slot: Tensor, slots: int) -> Tensor:
    """(m, D) rows added up in (slots, D) as `slot` (m,) says, in an order that depends on their own slot alone."""
    sums = rows.new_zeros(slots, rows.shape[1])
    if rows.device.type == "cpu":
        return sums.index_add_(0, slot, rows)
    # On CUDA index_add adds in the order in which threads come; accumulation by index sorts first.
    return sums.index_put_((slot,), rows, accumulate=True)
