"""Weights told as a small difference from other weights.

A captioner that was trained on from another one differs from it by little, so little needs few bits: each number of the
difference of two matrices is kept in four, as a multiple -7 .. 7 of a step that 64 neighbours share. Rows and columns
that the base does not have, such as those of new tokens, and vectors are kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

_STEPS, _MULTIPLES, _ROWS, _COLUMNS = ".steps", ".multiples", ".rows", ".columns"
_GROUP, _MOST = 64, 7


def as_difference(state: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What to keep of `state` beside `base`; `with_difference` makes the weights of it again, nearly.

    Args:
        state: weights by name.
        base: other weights; a matrix whose name both have must not be larger there.

    Returns:
        uint8 for the multiples, two to a byte; float32 or the dtype of `state` for the rest.
    """
    kept: dict[str, Tensor] = {}
    for name, weights in state.items():
        old = base.get(name)
        if old is None or weights.ndim != 2:
            kept[name] = weights
            continue
        rows, columns = old.shape
        kept[name + _STEPS], kept[name + _MULTIPLES] = _quantized(weights[:rows, :columns].float() - old.float())
        kept[name + _ROWS] = weights[rows:]
        kept[name + _COLUMNS] = weights[:rows, columns:]
    return {name: weights.contiguous() for name, weights in kept.items() if weights.numel()}


def with_difference(kept: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 weights of which `as_difference` made `kept` beside the same `base`.

    Raises:
        ValueError: names or shapes do not fit the base.
    """
    state: dict[str, Tensor] = {}
    for name, weights in kept.items():
        if name.endswith(_STEPS):
            name = name.removesuffix(_STEPS)
            if name not in base:
                raise ValueError(f"a difference from {name!r}, which the base does not have")
            state[name] = _grown(name, kept, base[name])
        elif not name.endswith((_MULTIPLES, _ROWS, _COLUMNS)):
            state[name] = weights.float()
    return state


def _grown(name: str, kept: Mapping[str, Tensor], old: Tensor) -> Tensor:
    steps, multiples = kept[name + _STEPS], kept[name + _MULTIPLES]
    if multiples.numel() != -(-old.numel() // _GROUP) * _GROUP // 2:
        raise ValueError(f"a difference from {name!r} of another size than the base, {tuple(old.shape)}")
    weights = old.float() + _unpacked(steps, multiples)[: old.numel()].view(old.shape)
    if name + _COLUMNS in kept:
        weights = torch.cat([weights, kept[name + _COLUMNS].float()], 1)
    if name + _ROWS in kept:
        weights = torch.cat([weights, kept[name + _ROWS].float()])
    return weights


def _quantized(difference: Tensor) -> tuple[Tensor, Tensor]:
    """Steps (groups,) float32 and multiples (groups * 32,) uint8 of a matrix, its rows one after the other."""
    flat = difference.flatten()
    groups = F.pad(flat, (0, -len(flat) % _GROUP)).view(-1, _GROUP)
    # Steps are stored as float16, so the multiples belong to what that leaves of them.
    steps = (groups.abs().amax(1) / _MOST).half().float()
    multiples = (groups / steps.clamp(min=1e-12)[:, None]).round().clamp(-_MOST, _MOST) + 8  # 1 .. 15
    low, high = multiples.to(torch.uint8).flatten().view(-1, 2).unbind(1)
    return steps, low | high << 4


def _unpacked(steps: Tensor, multiples: Tensor) -> Tensor:
    """Flat float32 values, those that fill the last group up included."""
    both = torch.stack([multiples & 15, multiples >> 4], 1).view(-1, _GROUP)
    return ((both.float() - 8) * steps.float()[:, None]).flatten()
