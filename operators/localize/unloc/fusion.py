"""The transformer that reads a video together with one text.

Every (video, text) pair is a sequence of its own: T video tokens, then the text. `Fusion` returns the video tokens of
all levels of the pyramid, which the heads read, and the text's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .blocks import FUSION_EPS, Block, additive_mask
from .config import FusionConfig, level_lengths
from .pyramid import Fpn, SimplePyramid


@lru_cache(maxsize=16)
def sinusoid(length: int, width: int) -> npt.NDArray[np.float32]:
    """Position codes (length, width): sine in even channels, cosine in odd ones, wavelengths up to 10000 * 2 pi.

    An array, not a tensor: whatever mode or device a model is made under, the table is the same.
    """
    if width % 2:
        raise ValueError(f"sinusoidal positions need an even width, not {width}")
    angles = np.arange(length)[:, None] * np.exp(np.arange(0, width, 2) * (-np.log(1e4) / width))  # length, width / 2
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)


class Fused(NamedTuple):
    """What the transformer makes of P pairs."""

    levels: list[Tensor]
    """Video tokens (P, T_l, d) of each level, fine to coarse."""
    text: Tensor
    """Text tokens (P, L, d); no head reads them."""


class Fusion(nn.Module):
    """The transformer of a `FusionConfig`."""

    def __init__(self, config: FusionConfig, frames: int) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.config = config
        self.lengths = level_lengths(frames, config.levels, config.stride)
        learned = config.positions == "learned"
        self.positions = nn.Parameter(torch.empty(frames + config.text_length, config.width)) if learned else None
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_width, FUSION_EPS, "gelu_tanh") for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=FUSION_EPS) if config.kind == "transformer" else None
        self.simple = SimplePyramid(config) if config.kind == "simple_pyramid" else None
        self.fpn = Fpn(config) if config.kind == "fpn" else None
        self._init_weights()

    def forward(
        self, video: Tensor, text: Tensor, mask: Tensor | None = None, text_mask: Tensor | None = None
    ) -> Fused:
        """Read aligned pairs.

        Args:
            video: (P, T, d).
            text: (P, L, d), L being 1 for pooled texts.
            mask: (P, N) bool, false where a time step of a level may not be looked at; None = all may. Masked steps
                still look at others, and the convolutions see them.
            text_mask: (P, L) bool of the text's tokens.
        """
        x = self._with_positions(torch.cat([video, text], 1))  # P, T + L, d
        masks = self._key_masks(mask, text, text_mask)
        if self.fpn is not None:
            levels: list[Tensor] = []
            for index, block in enumerate(self.blocks):
                x = block(x, masks[len(levels)])
                if index in self.config.pyramid_blocks:
                    levels.append(x[:, : -text.shape[1]])
                    if index < len(self.blocks) - 1:
                        x = torch.cat([self.fpn.shrink(levels[-1], len(levels) - 1), x[:, -text.shape[1] :]], 1)
            return Fused(self.fpn(levels), x[:, -text.shape[1] :])
        for block in self.blocks:
            x = block(x, masks[0])
        if self.norm is not None:
            x = self.norm(x)
        video, text = x[:, : video.shape[1]], x[:, video.shape[1] :]
        return Fused([video] if self.simple is None else self.simple(video), text)

    def _with_positions(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        if self.positions is not None:
            if length != len(self.positions):
                raise ValueError(f"{length} tokens of video and text, but positions for {len(self.positions)}")
            return x + self.positions
        if self.config.positions == "none":
            return x
        return x + torch.from_numpy(sinusoid(length, self.config.width)).to(x)

    def _key_masks(self, mask: Tensor | None, text: Tensor, text_mask: Tensor | None) -> list[Tensor | None]:
        """What is added to the scores at each level, (P, 1, 1, T_l + L); None where everything may be seen."""
        if mask is None and text_mask is None:
            return [None] * len(self.lengths)
        pairs, tokens = text.shape[:2]
        if mask is None:
            mask = torch.ones(pairs, sum(self.lengths), dtype=torch.bool, device=text.device)
        if text_mask is None:
            text_mask = torch.ones(pairs, tokens, dtype=torch.bool, device=text.device)
        if mask.shape != (pairs, sum(self.lengths)):
            raise ValueError(f"the mask is {tuple(mask.shape)} instead of {(pairs, sum(self.lengths))}: all levels")
        keys = (torch.cat([level, text_mask.bool()], 1) for level in torch.split(mask.bool(), list(self.lengths), 1))
        return [additive_mask(level)[:, None, None, :] for level in keys]

    def _init_weights(self) -> None:
        if self.positions is not None and not self.positions.is_meta:
            nn.init.normal_(self.positions, std=0.02)
        for block in self.blocks:
            for name, weights in block.named_parameters():
                if weights.is_meta or weights.ndim == 1 and "norm" in name:
                    continue
                if weights.ndim == 1:
                    nn.init.normal_(weights, std=1e-6) if "mlp" in name else nn.init.zeros_(weights)
                elif "qkv" in name:
                    for part in weights.chunk(3):  # three kernels of the reference
                        nn.init.xavier_uniform_(part)
                else:
                    nn.init.xavier_uniform_(weights)
