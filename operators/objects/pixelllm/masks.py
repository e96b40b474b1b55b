"""The mask decoder of Segment Anything (Kirillov et al. 2023, appendix A), for single masks of known boxes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import MaskConfig
from .two_way import TwoWayTransformer


class Mlp(nn.Module):
    """Linear layers with ReLUs between."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        """Random weights."""
        super().__init__()
        widths = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class Upscaling(nn.Module):
    """A map of four times the size and an eighth of the channels."""

    def __init__(self, width: int) -> None:
        """Random weights."""
        super().__init__()
        self.first = nn.ConvTranspose2d(width, width // 4, 2, 2)
        self.norm = nn.LayerNorm(width // 4, eps=1e-6)
        self.second = nn.ConvTranspose2d(width // 4, width // 8, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C / 8, 4 h, 4 w)."""
        x = F.gelu(self.norm(self.first(x).movedim(1, -1))).movedim(-1, 1)
        return F.gelu(self.second(x))


class MaskDecoder(nn.Module):
    """Masks of prompts, and how good it thinks they are."""

    def __init__(self, config: MaskConfig, width: int) -> None:
        """Random weights for features and prompts of `width`."""
        super().__init__()
        masks = config.num_masks + 1
        self.iou_token = nn.Parameter(torch.randn(1, width))
        self.mask_tokens = nn.Parameter(torch.randn(masks, width))
        self.transformer = TwoWayTransformer(config.depth, width, config.num_heads, config.mlp_size)
        self.upscaling = Upscaling(width)
        self.mask_heads = nn.ModuleList(Mlp(width, config.head_size, width // 8, 3) for _ in range(masks))
        self.iou_head = Mlp(width, config.head_size, masks, config.head_depth)

    def forward(
        self, image: Tensor, places: Tensor, prompts: Tensor, no_mask: Tensor, several: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Masks of N prompts about each of B pictures.

        Args:
            image: (B, h, w, C) features.
            places: (h, w, C) codes of the cells.
            prompts: (B, N, P, C) embedded points or corners.
            no_mask: (1, C), what stands for the mask that no prompt has.
            several: the masks for ambiguous prompts instead of the single one.

        Returns:
            (B, N, masks, 4 h, 4 w) logits, and their expected IoUs (B, N, masks).
        """
        batch, each = prompts.shape[:2]
        grid = image.shape[1:3]
        own = torch.cat([self.iou_token, self.mask_tokens])
        tokens = torch.cat([own.expand(batch * each, -1, -1), prompts.flatten(0, 1)], 1)
        source = (image + no_mask).flatten(1, 2).repeat_interleave(each, 0)  # B * N, h * w, C
        read, source = self.transformer(source, places.flatten(0, 1), tokens)
        large = self.upscaling(source.transpose(1, 2).reshape(batch * each, -1, *grid))  # B * N, C / 8, 4 h, 4 w
        chosen = slice(1, None) if several else slice(0, 1)
        kernels = torch.stack([head(read[:, 1 + mask]) for mask, head in enumerate(self.mask_heads)], 1)[:, chosen]
        masks = torch.einsum("pmc,pchw->pmhw", kernels, large)
        quality = self.iou_head(read[:, 0])[:, chosen]
        return masks.view(batch, each, *masks.shape[1:]), quality.reshape(batch, each, -1)
