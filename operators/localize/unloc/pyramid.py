"""Levels of time for the fusion: one of the last block's output, one of the outputs of several blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import FUSION_EPS, TimeConv, init_lecun
from .config import FusionConfig


class SimplePyramid(nn.Module):
    """Each level is made of the one before it by a strided depthwise convolution and a norm (as in ViTDet)."""

    def __init__(self, config: FusionConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.convs = nn.ModuleList(
            TimeConv(config.width, stride=config.stride if level else 1, depthwise=True)
            for level in range(config.levels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.width, eps=FUSION_EPS) for _ in range(config.levels))
        self.apply(init_lecun)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(P, T, d) -> (P, T_l, d) of each level."""
        levels = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            levels.append(x := norm(conv(x)))
        return levels


class Fpn(nn.Module):
    """Levels of several blocks, told from coarse to fine; `shrink` is what stands between the blocks."""

    def __init__(self, config: FusionConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.kind, self.stride = config.downsample, config.stride
        strided = config.levels - 1 if config.downsample.endswith("conv") and config.stride > 1 else 0
        depthwise = config.downsample == "depthwise_conv"
        self.downs = nn.ModuleList(
            TimeConv(config.width, stride=config.stride, depthwise=depthwise) for _ in range(strided)
        )
        self.convs = nn.ModuleList(TimeConv(config.width, depthwise=True) for _ in range(config.levels))
        self.norms = nn.ModuleList(nn.LayerNorm(config.width, eps=FUSION_EPS) for _ in range(config.levels))
        self.apply(init_lecun)

    def shrink(self, x: Tensor, level: int) -> Tensor:
        """The tokens (P, T_l, d) of a level as those of the next one, (P, T_l / stride, d)."""
        if self.stride == 1:
            return x
        if self.downs:
            return self.downs[level](x)  # type: ignore[no-any-return]
        steps = x.shape[1] // self.stride
        if self.kind == "subsample":
            # The reference takes the places of level 0 at every level and so runs over the end at the second one.
            return x[:, : steps * self.stride : self.stride]
        windows = x[:, : steps * self.stride].reshape(len(x), steps, self.stride, -1)  # P, T_l / stride, stride, d
        return windows.amax(2) if self.kind == "max_pool" else windows.mean(2)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """What the blocks gave -> what the heads read, both (P, T_l, d) of each level."""
        summed = [levels[-1]]
        for finer in reversed(levels[:-1]):
            summed.insert(0, finer + nearest(summed[0], finer.shape[1]))
        return [norm(conv(x)) for x, conv, norm in zip(summed, self.convs, self.norms, strict=True)]


def nearest(x: Tensor, length: int) -> Tensor:
    """Tokens (P, L, d) stretched to (P, length, d): each from the step its centre falls into."""
    if length % x.shape[1] == 0:
        return x.repeat_interleave(length // x.shape[1], 1)
    places = ((torch.arange(length, device=x.device) + 0.5) * x.shape[1] / length).floor().long()
    return x[:, places]
