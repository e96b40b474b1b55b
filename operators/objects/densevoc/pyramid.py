"""The simple feature pyramid of ViTDet (Li et al., ECCV 2022): all levels from the last map of a plain ViT."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from .config import BackboneConfig
from .vit import DetectionVit

_EPS = 1e-6


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class NormedConv(nn.Conv2d):
    """A convolution without bias that keeps the size, and a layer norm over its channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        """`kernel`: its side, odd."""
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = ChannelNorm(outputs, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        return self.norm(super().forward(x))  # type: ignore[no-any-return]


class TwiceDown(nn.Module):
    """Two more levels, each half as fine."""

    def __init__(self, channels: int) -> None:
        """`channels`: C, before and after."""
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.p7 = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> two maps, of half and a quarter of the sides."""
        p6 = self.p6(x)
        return [p6, self.p7(F.relu(p6))]


class SimplePyramid(nn.Module):
    """A ViT and the levels made from its tokens."""

    def __init__(self, config: BackboneConfig, channels: int) -> None:
        """`channels`: of every level."""
        super().__init__()
        self.net = DetectionVit(config)
        self.stages = [_stage_name(scale) for scale in config.scales]
        for name, scale in zip(self.stages, config.scales, strict=True):
            self.add_module(name, _stage(config, channels, scale))
        self.top_block = TwiceDown(channels) if config.top_blocks else None

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised pictures (B, 3, H, W) to levels (B, C, h, w), fine to coarse."""
        tokens = self.net(images)
        levels: list[Tensor] = [self.get_submodule(name)(tokens) for name in self.stages]
        if self.top_block is not None:
            levels += self.top_block(levels[-1])
        return levels


def _stage_name(scale: float) -> str:
    return {4.0: "simfp_2", 2.0: "simfp_3", 1.0: "simfp_4", 0.5: "simfp_5"}[scale]


def _stage(config: BackboneConfig, channels: int, scale: float) -> nn.Sequential:
    """One level: its resampling, then two convolutions; numbered as in the reference."""
    width = config.width
    half, quarter = ((config.pyramid_width or width) // part for part in (2, 4))
    resampling: list[nn.Module] = []
    if scale == 4.0:
        resampling = [nn.ConvTranspose2d(width, half, 2, 2), ChannelNorm(half, eps=_EPS), nn.GELU()]
        resampling.append(nn.ConvTranspose2d(half, quarter, 2, 2))
        width = quarter
    elif scale == 2.0:
        resampling = [nn.ConvTranspose2d(width, half, 2, 2)]
        width = half
    elif scale == 0.5:
        resampling = [nn.MaxPool2d(2, 2)]
    parts = [*resampling, NormedConv(width, channels, 1), NormedConv(channels, channels, 3)]
    return nn.Sequential(OrderedDict((str(number), part) for number, part in enumerate(parts)))
