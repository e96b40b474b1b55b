"""Softmax and GELU that round to bfloat16 after every operation, as the reference's arrays of that type do.

PyTorch's own compute in float32 and round once at the end. That is nearer to the truth but makes other numbers, and
bfloat16 logits have so few digits that other numbers mean other ties and other texts. In float32 PyTorch's own are
used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ATTENTION = "onlooker_t5"
"""Name under which transformers finds `attention`."""

_SQRT_2_OVER_PI = 0.7978845608028654
_CUBIC = 0.044715


def softmax(logits: Tensor) -> Tensor:
    """Over the last axis, in the dtype of the logits."""
    if logits.dtype == torch.float32:
        return torch.softmax(logits, -1)
    powers = (logits - logits.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


class TanhGelu(nn.Module):
    """GELU in its tanh approximation."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, in the dtype of x."""
        if x.dtype == torch.float32:
            return F.gelu(x, approximate="tanh")
        # Constants are rounded too: those that a Python number brings into an operation would not be.
        scale, cubic = x.new_full((), _SQRT_2_OVER_PI), x.new_full((), _CUBIC)
        return x * (0.5 * (1.0 + torch.tanh(scale * (x + cubic * (x * x * x)))))


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' T5 with the softmax above; logits are not scaled.

    Args:
        module: the layer.
        query: (R, heads, Q, head_dim).
        key: (R, heads, K, head_dim).
        value: like `key`.
        attention_mask: broadcasts to (R, heads, Q, K), added to the logits.
        dropout: on the weights, in training only.
        position_bias: like `attention_mask`.

    Returns:
        (R, Q, heads, head_dim), and no weights.
    """
    bias = attention_mask if position_bias is None else position_bias + attention_mask
    weights = softmax(query @ key.transpose(2, 3) + bias)
    weights = F.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None
