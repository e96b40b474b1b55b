"""The EVA-02 vision transformer: rotary positions in two dimensions, SwiGLU with a norm inside.

Source: Fang et al., "EVA-02: A Visual Representation for Neon Genesis" (2023), section 2, as PixelLLM uses it:
positions are learnt and rotary at once, keys have no bias, all norms come first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import EvaConfig

_EPS = 1e-6


class EvaAttention(nn.Module):
    """Multi-head self-attention whose queries and keys of patches are turned by their places."""

    def __init__(self, width: int, heads: int) -> None:
        """Random weights."""
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """Tokens (B, 1 + n, D), the class token first, and `rotation` of their places -> (B, 1 + n, D)."""
        q, k = rotate(self._split(self.q_proj(x)), turn), rotate(self._split(self.k_proj(x)), turn)
        mixed = F.scaled_dot_product_attention(q, k, self._split(self.v_proj(x)))
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # B, heads, 1 + n, head_dim


class SwiGlu(nn.Module):
    """The feed-forward part: a gated layer, a norm, a layer."""

    def __init__(self, width: int, inner: int) -> None:
        """Random weights."""
        super().__init__()
        self.w1 = nn.Linear(width, inner)
        self.w2 = nn.Linear(width, inner)
        self.ffn_ln = nn.LayerNorm(inner, eps=1e-5)
        self.w3 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))  # type: ignore[no-any-return]


class EvaBlock(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: EvaConfig, drop_path: float) -> None:
        """Random weights."""
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=_EPS)
        self.attn = EvaAttention(config.width, config.num_heads)
        self.norm2 = nn.LayerNorm(config.width, eps=_EPS)
        self.mlp = SwiGlu(config.width, config.mlp_size)
        self.drop_path = drop_path

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """(B, 1 + n, D) -> (B, 1 + n, D)."""
        x = x + self._kept(self.attn(self.norm1(x), turn))
        return x + self._kept(self.mlp(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        """A residual branch, in training dropped for some of the pictures."""
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * keep / (1.0 - self.drop_path)


class EvaTransformer(nn.Module):
    """The trunk: normalised pictures to a map."""

    def __init__(self, config: EvaConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        width, size = config.width, config.patch_size
        self.patch = nn.Conv2d(3, width, size, size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (config.position_size // size) ** 2, width))
        last = max(config.num_layers - 1, 1)
        self.blocks = nn.ModuleList(EvaBlock(config, config.drop_path * i / last) for i in range(config.num_layers))
        self.ln_post = nn.LayerNorm(width, eps=_EPS) if config.final_norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) -> (B, h, w, D) without the class token; pixels beyond the last whole patch are not seen."""
        x = self.patch(images.movedim(-1, 1))  # B, D, h, w
        grid = (x.shape[2], x.shape[3])
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + self._positions(grid)
        turn = rotation(grid, self.config.width // self.config.num_heads, x)
        for block in self.blocks:
            x = block(x, turn)
        return self.ln_post(x)[:, 1:].reshape(len(x), *grid, -1)  # type: ignore[no-any-return]

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        own, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = math.isqrt(patches.shape[1])
        if grid != (side, side):
            table = resize_map(patches.reshape(1, side, side, -1), grid, "bicubic")
            patches = table.flatten(1, 2)
        return torch.cat([own, patches], 1)


def resize_map(maps: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Maps (B, h, w, C) at another (height, width), as `jax.image.resize` does it.

    Antialiased; `bicubic` is Keys' with a = -0.5, weights at the border are normalised.
    """
    if tuple(maps.shape[1:3]) == tuple(size):
        return maps
    return F.interpolate(maps.movedim(-1, 1), size, mode=mode, align_corners=False, antialias=True).movedim(1, -1)


def rotation(grid: tuple[int, int], head_dim: int, like: Tensor) -> Tensor:
    """Cosines and sines (2, h * w, head_dim) by which places are turned: the first half by row, the second by column.

    Frequencies fall from 1 to 1 / 10000 within each half; neighbouring channels are a pair.
    """
    half = head_dim // 2
    frequencies = 10000.0 ** (-torch.arange(0, half, 2, device=like.device, dtype=torch.float32) / half)
    rows, columns = (
        torch.outer(torch.arange(side, device=like.device, dtype=torch.float32), frequencies).repeat_interleave(2, 1)
        for side in grid
    )
    shape = (*grid, half)
    angles = torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], -1).flatten(0, 1)
    return torch.stack([angles.cos(), angles.sin()]).to(like.dtype)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the patches' channels in pairs: (B, heads, 1 + n, head_dim); the class token in front stays as it is."""
    own, patches = x[:, :, :1], x[:, :, 1:]
    first, second = patches.reshape(*patches.shape[:-1], -1, 2).unbind(-1)
    crossed = torch.stack([-second, first], -1).flatten(-2)
    return torch.cat([own, patches * turn[0] + crossed * turn[1]], 2)
