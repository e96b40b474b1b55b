"""Weights told as a small update of other weights.

A captioner that was trained on from another one differs from it by little of high rank. Each matrix is kept as

    new = grown(base) + up @ down

with up (rows, r) and down (r, columns), after Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021,
section 4.1); here they come from the singular values of the difference after training. Rows and columns that the base
does not have, such as those of new tokens, and vectors are kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_UP, _DOWN, _ROWS, _COLUMNS = ".up", ".down", ".rows", ".columns"


def as_update(state: Mapping[str, Tensor], base: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What to keep of `state` beside `base`; `with_update` makes the weights of it again, nearly.

    Args:
        state: weights by name.
        base: other weights; those of a name that both have must not be larger there.
        rank: r of every difference of two matrices.
    """
    kept: dict[str, Tensor] = {}
    for name, weights in state.items():
        old = base.get(name)
        if old is None or weights.ndim != 2:
            kept[name] = weights
            continue
        rows, columns = old.shape
        up, values, down = torch.linalg.svd(weights[:rows, :columns].float() - old.float(), full_matrices=False)
        kept[name + _UP] = up[:, :rank] * values[:rank]
        kept[name + _DOWN] = down[:rank]
        kept[name + _ROWS] = weights[rows:]
        kept[name + _COLUMNS] = weights[:rows, columns:]
    return {name: weights.contiguous() for name, weights in kept.items() if weights.numel()}


def with_update(kept: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 weights of which `as_update` made `kept` beside the same `base`.

    Raises:
        ValueError: shapes do not fit the base.
    """
    state: dict[str, Tensor] = {}
    for name, weights in kept.items():
        if name.endswith(_UP):
            name = name.removesuffix(_UP)
            if name not in base:
                raise ValueError(f"an update of {name!r}, which the base does not have")
            state[name] = _grown(name, kept, base[name])
        elif not name.endswith((_DOWN, _ROWS, _COLUMNS)):
            state[name] = weights.float()
    return state


def _grown(name: str, kept: Mapping[str, Tensor], old: Tensor) -> Tensor:
    up, down = kept[name + _UP].float(), kept[name + _DOWN].float()
    if (len(up), down.shape[1]) != tuple(old.shape):
        raise ValueError(f"an update of {name!r} of {len(up)}x{down.shape[1]}, but the base is {tuple(old.shape)}")
    weights = old.float() + up @ down
    if name + _COLUMNS in kept:
        weights = torch.cat([weights, kept[name + _COLUMNS].float()], 1)
    if name + _ROWS in kept:
        weights = torch.cat([weights, kept[name + _ROWS].float()])
    return weights
