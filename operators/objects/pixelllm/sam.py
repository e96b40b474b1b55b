"""The image encoder of Segment Anything: the vision transformer of ViTDet with a convolutional neck.

Source: Kirillov et al., "Segment Anything" (2023), appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onlooker.operators.objects.densevoc.config import BackboneConfig
from onlooker.operators.objects.densevoc.vit import Block

from .config import SamConfig
from .eva import resize_map

_EPS = 1e-6


class SamNeck(nn.Module):
    """Two convolutions without bias, each with a norm over channels."""

    def __init__(self, width: int, channels: int) -> None:
        """Random weights."""
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 1, bias=False)
        self.norm1 = nn.LayerNorm(channels, eps=_EPS)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.LayerNorm(channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, h, w, C)."""
        x = self.norm1(self.conv1(x.movedim(-1, 1)).movedim(1, -1))
        return self.norm2(self.conv2(x.movedim(-1, 1)).movedim(1, -1))  # type: ignore[no-any-return]


class SamEncoder(nn.Module):
    """The trunk: normalised pictures to a map."""

    def __init__(self, config: SamConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        side = config.position_size // config.patch_size
        self.patch = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.width))
        blocks = BackboneConfig(
            image_size=config.position_size,
            patch_size=config.patch_size,
            width=config.width,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            window_size=config.window_size,
            window_blocks=config.window_blocks,
            drop_path=config.drop_path,
        )
        self.blocks = nn.ModuleList(Block(blocks, index) for index in range(config.num_layers))
        self.neck = SamNeck(config.width, config.channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) -> (B, h, w, C); pixels beyond the last whole patch are not seen."""
        x = self.patch(images.movedim(-1, 1)).movedim(1, -1)  # B, h, w, D
        x = x + resize_map(self.pos_embed, (x.shape[1], x.shape[2]), "bicubic")
        for block in self.blocks:
            x = block(x)
        return self.neck(x)  # type: ignore[no-any-return]
