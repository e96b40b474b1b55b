"""Tables of word vectors in eight bits: half the size of float16, which is most of what a small text tower weighs.

Each row is kept as multiples -127 .. 127 of a step of its own, so that a number is off by at most half a step: 0.4 % of
the row's largest. In a file, `NAME` becomes `NAME.multiples` (int8) and `NAME.steps` (float16, one per row).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["dequantized", "is_quantized", "quantized_rows"]

_MULTIPLES, _STEPS = ".multiples", ".steps"
_MOST = 127


def quantized_rows(name: str, table: Tensor) -> dict[str, Tensor]:
    """What to keep of a table (rows, width) under `name`."""
    # Steps are stored as float16, so the multiples belong to what that leaves of them.
    steps = (table.float().abs().amax(1) / _MOST).half()
    multiples = (table.float() / steps.float().clamp(min=1e-12)[:, None]).round().clamp(-_MOST, _MOST)
    return {name + _MULTIPLES: multiples.to(torch.int8), name + _STEPS: steps}


def is_quantized(names: Iterable[str]) -> bool:
    """Whether any of the arrays of a file is kept in this form."""
    return any(name.endswith(_MULTIPLES) for name in names)


def dequantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of which `quantized_rows` kept some tables, those as float32.

    Raises:
        ValueError: multiples without their steps, or of another number of rows.
    """
    whole = {name: value for name, value in state.items() if not name.endswith((_MULTIPLES, _STEPS))}
    for name, multiples in state.items():
        if name.endswith(_MULTIPLES):
            name = name.removesuffix(_MULTIPLES)
            steps = state.get(name + _STEPS)
            if steps is None or steps.shape != multiples.shape[:1]:
                raise ValueError(f"{name} lacks the steps of its {len(multiples)} rows")
            whole[name] = multiples.float() * steps.float()[:, None]
    return whole
