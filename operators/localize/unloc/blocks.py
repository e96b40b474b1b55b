"""Parts that the towers, the fusion and the heads of UnLoc share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onlooker.operators.tower.vit import quick_gelu

CLIP_EPS = 1e-5
FUSION_EPS = 1e-6
"""Of layer norms in the fusion, the pyramid and the heads."""


def additive_mask(keep: Tensor) -> Tensor:
    """What is added to attention scores: 0 where `keep` (bool), else the lowest float32.

    Not minus infinity: a row in which nothing may be seen becomes the mean of all, as in flax, and not NaN.
    """
    mask = torch.zeros(keep.shape, device=keep.device)
    return mask.masked_fill_(~keep, torch.finfo(torch.float32).min)


class Attention(nn.Module):
    """Multi-head self-attention with biases."""

    def __init__(self, width: int, heads: int) -> None:
        """PyTorch's random weights; whoever has blocks draws them again."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(P, L, D) -> (P, L, D); `mask` of `additive_mask`, (P or 1, 1, L or 1, L)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each P, heads, L, D / heads
        if mask is not None and mask.dtype != q.dtype:
            mask = mask.clamp_min(torch.finfo(q.dtype).min).to(q.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block: CLIP's with `quick_gelu`, the fusion's with the tanh approximation of GELU."""

    def __init__(
        self, width: int, heads: int, mlp_width: int, eps: float, activation: Literal["quick_gelu", "gelu_tanh"]
    ) -> None:
        """PyTorch's random weights; whoever has blocks draws them again."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp_in = nn.Linear(width, mlp_width)
        self.mlp_out = nn.Linear(mlp_width, width)
        self.quick = activation == "quick_gelu"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(P, L, D) -> (P, L, D)."""
        x = x + self.attn(self.norm1(x), mask)
        hidden = self.mlp_in(self.norm2(x))
        hidden = quick_gelu(hidden) if self.quick else F.gelu(hidden, approximate="tanh")
        return x + self.mlp_out(hidden)  # type: ignore[no-any-return]


class TimeConv(nn.Conv1d):
    """A convolution over time of tokens (..., L, D) with the padding that XLA calls SAME.

    Its output has ceil(L / stride) steps. What must be padded is split in two halves, the right one being the larger:
    at stride 2 and even L all of it stands on the right, where `padding=1` would put it on the left.
    """

    def __init__(self, width: int, kernel: int = 3, stride: int = 1, *, depthwise: bool = False) -> None:
        """From `width` channels to as many, all of all or (`depthwise`) each of its own."""
        super().__init__(width, width, kernel, stride, groups=width if depthwise else 1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., L, D) -> (..., ceil(L / stride), D)."""
        kernel, stride, length = self.kernel_size[0], self.stride[0], x.shape[-2]
        steps = -(-length // stride)
        padding = max((steps - 1) * stride + kernel - length, 0)
        channels = x.flatten(0, -3).transpose(1, 2)  # P, D, L
        if padding % 2 == 0:
            y = F.conv1d(channels, self.weight, self.bias, stride, padding // 2, 1, self.groups)
        else:
            channels = F.pad(channels, (padding // 2, padding - padding // 2))
            y = F.conv1d(channels, self.weight, self.bias, stride, 0, 1, self.groups)
        # Contiguous: a linear layer on a transposed tensor takes another path, with other bits, while it is trained.
        return y.transpose(1, 2).contiguous().view(*x.shape[:-2], steps, x.shape[-1])


def init_lecun(module: nn.Module) -> None:
    """Draw a layer as flax does by default: normal of variance 1 / fan-in, cut at two deviations; biases zero."""
    if isinstance(module, nn.Linear | nn.Conv1d) and not module.weight.is_meta:
        std = module.weight[0].numel() ** -0.5 / 0.87962566
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
