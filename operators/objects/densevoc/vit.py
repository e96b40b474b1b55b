"""The plain vision transformer of ViTDet (Li et al., ECCV 2022): windows, and relative positions along both axes."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import BackboneConfig

_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention over a grid of tokens.

    To the scaled product of query and key come the products of the *unscaled* query with a learnt vector for the
    distance along each axis.
    """

    def __init__(self, width: int, num_heads: int, side: int) -> None:
        """`side`: tokens along each side of the grids that the tables are for."""
        super().__init__()
        self.heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, h, w, D)."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each B, heads, h * w, head width
        grid = q.reshape(batch, self.heads, height, width, -1)
        along_h = torch.einsum("bnhwc,hkc->bnhwk", grid, distances(self.rel_pos_h, height))
        along_w = torch.einsum("bnhwc,wkc->bnhwk", grid, distances(self.rel_pos_w, width))
        bias = (along_h[..., :, None] + along_w[..., None, :]).reshape(batch, self.heads, height * width, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, bias)
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


def distances(table: Tensor, side: int) -> Tensor:
    """The vectors of all pairs of places along an axis: (2 * any - 1, D) -> (side, side, D)."""
    if len(table) != 2 * side - 1:
        # `jax.image.resize`'s linear, which averages where the table shrinks. Along the width, because torch returns
        # zeros for an image one pixel wide whose height alone is resized.
        table = F.interpolate(table.T[None, :, None], (1, 2 * side - 1), mode="bilinear", antialias=True)[0, :, 0].T
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place[None, :] + side - 1]


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One pre-norm transformer block, over windows or the whole grid."""

    def __init__(self, config: BackboneConfig, number: int) -> None:
        """`number`: of the block, from 0."""
        super().__init__()
        self.window = config.window_size if number in config.window_blocks else 0
        side = self.window or config.image_size // config.patch_size
        self.norm1 = nn.LayerNorm(config.width, eps=_EPS)
        self.attn = Attention(config.width, config.num_heads, side)
        self.norm2 = nn.LayerNorm(config.width, eps=_EPS)
        self.mlp = _Mlp(config.width, int(config.width * config.mlp_ratio))
        self.drop_path = config.drop_path * number / max(config.num_layers - 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, h, w, D)."""
        normed = self.norm1(x)
        x = x + self._branch(self._windowed(normed) if self.window else self.attn(normed))
        return x + self._branch(self.mlp(self.norm2(x)))

    def _windowed(self, x: Tensor) -> Tensor:
        """Attention within windows; zeros that fill the last ones up take part like any token."""
        batch, height, width, depth = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.view(batch, rows, side, columns, side, depth).transpose(2, 3)
        mixed = self.attn(windows.reshape(-1, side, side, depth))
        whole = mixed.view(batch, rows, columns, side, side, depth).transpose(2, 3)
        filled: Tensor = whole.reshape(batch, rows * side, columns * side, depth)
        return filled[:, :height, :width]

    def _branch(self, y: Tensor) -> Tensor:
        """A residual branch, in training dropped for some of the pictures."""
        if self.training and self.drop_path > 0.0:
            keep = torch.rand(y.shape[0], 1, 1, 1, device=y.device) >= self.drop_path
            y = y * keep / (1.0 - self.drop_path)
        return y


class DetectionVit(nn.Module):
    """Pictures to a grid of tokens."""

    def __init__(self, config: BackboneConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.config = config
        proj = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.patch_embed = nn.Sequential(OrderedDict(proj=proj))
        side = config.pretrain_size // config.patch_size
        self.pos_embed = nn.Parameter(torch.zeros(1, side**2 + 1, config.width))  # the first is a class token's
        self.ln_pre = nn.LayerNorm(config.width, eps=_EPS)
        self.blocks = nn.ModuleList(Block(config, number) for number in range(config.num_layers))
        self.apply(_init)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, 3, H, W) to tokens (B, D, h, w); pixels beyond the last whole patch are not seen."""
        x: Tensor = self.patch_embed(images).movedim(1, -1)  # B, h, w, D
        x = self.ln_pre(x + self._positions(x.shape[1], x.shape[2]))
        for block in self.blocks:
            x = block(x)
        return x.movedim(-1, 1).contiguous()

    def _positions(self, height: int, width: int) -> Tensor:
        """(1, h, w, D), bicubically resized from the learnt ones."""
        side = self.config.pretrain_size // self.config.patch_size
        table = self.pos_embed[:, 1:].view(1, side, side, -1)
        if (height, width) == (side, side):
            return table
        # Antialiased, with Keys' a = -0.5 and weights normalised at the border: `jax.image.resize`'s bicubic.
        resized = F.interpolate(table.movedim(-1, 1), (height, width), mode="bicubic", antialias=True)
        return resized.movedim(1, -1)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear) and not module.weight.is_meta:
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
