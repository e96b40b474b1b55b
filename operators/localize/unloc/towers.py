"""The two sides of CLIP as UnLoc reads them: a token per frame, and all tokens of a text.

They differ from `operators/tower/vit.py`'s trunk in what comes out, in their epsilon, and in class tokens of which
every place in time has its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import CLIP_EPS, Block, additive_mask, init_lecun
from .config import ImageTowerConfig, TextTowerConfig


def _blocks(width: int, heads: int, layers: int) -> nn.ModuleList:
    return nn.ModuleList(Block(width, heads, 4 * width, CLIP_EPS, "quick_gelu") for _ in range(layers))


class ImageTower(nn.Module):
    """Frames to one token each."""

    def __init__(self, config: ImageTowerConfig, frames: int) -> None:
        """Random weights; `frames` is T, the places in time with a class token of their own."""
        super().__init__()
        self.config = config
        width, token = config.width, config.pool == "token"
        self.patch = nn.Linear(3 * config.patch**2, width, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(frames, width)) if token else None
        self.positions = nn.Parameter(torch.zeros(config.patches + int(token), width))
        self.ln_pre = nn.LayerNorm(width, eps=CLIP_EPS)
        self.blocks = _blocks(width, config.heads, config.layers)
        self.ln_post = nn.LayerNorm(width, eps=CLIP_EPS)
        self.apply(init_lecun)
        for table in (self.class_embedding, self.positions):
            if table is not None and not table.is_meta:
                nn.init.normal_(table, std=width**-0.5)

    def forward(self, rgb: Tensor) -> Tensor:
        """Normalised frames (B, T, H, W, 3) to tokens (B, T, width).

        Raises:
            ValueError: H or W is no multiple of the patch, or frames have more or fewer patches than positions.
        """
        x = self.patch(self._patches(rgb))  # B, T, patches, width
        if self.class_embedding is not None:
            own = self.class_embedding
            if len(own) != rgb.shape[1]:
                raise ValueError(f"{rgb.shape[1]} frames, but class tokens for {len(own)}")
            x = torch.cat([own[None, :, None].expand(len(rgb), -1, -1, -1), x], 2)
        if x.shape[2] != len(self.positions):
            raise ValueError(f"frames of {tuple(rgb.shape[2:4])} pixels do not have {self.config.patches} patches")
        x = self.ln_pre(x + self.positions).flatten(0, 1)  # B * T, tokens, width
        for block in self.blocks:
            x = block(x)
        x = self.ln_post(x)
        frames: Tensor = x[:, 0] if self.class_embedding is not None else x.mean(1)  # B * T, width
        return frames.view(*rgb.shape[:2], -1)

    def _patches(self, rgb: Tensor) -> Tensor:
        """(B, T, H, W, 3) -> (B, T, patches, 3 * patch^2): patches row by row, in each rows, columns, channels."""
        side = self.config.patch
        videos, frames, height, width, channels = rgb.shape
        if height % side or width % side:
            raise ValueError(f"frames of {height}x{width} pixels are not made of patches of {side}x{side}")
        grid = rgb.reshape(videos, frames, height // side, side, width // side, side, channels)
        return grid.transpose(3, 4).flatten(4).flatten(2, 3)


class TextTower(nn.Module):
    """Tokenised texts to tokens."""

    def __init__(self, config: TextTowerConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.zeros(config.length, config.width))
        self.blocks = _blocks(config.width, config.heads, config.layers)
        self.norm = nn.LayerNorm(config.width, eps=CLIP_EPS)
        self.apply(init_lecun)
        if not self.positions.is_meta:
            nn.init.normal_(self.words.weight, std=0.02)
            nn.init.normal_(self.positions, std=0.01)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (n, length) int64, filled up with 0, to tokens (n, length, width).

        A token sees those up to itself. Fill sees all there is, evenly, as in the reference; nobody reads it.
        """
        if ids.shape[1] != len(self.positions):
            raise ValueError(f"texts of {ids.shape[1]} tokens, but positions for {len(self.positions)}")
        word = ids > 0
        causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
        mask = additive_mask(word[:, None, :] & word[:, :, None] & causal)[:, None]  # n, 1, length, length
        x = self.words(ids) + self.positions
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)  # type: ignore[no-any-return]
