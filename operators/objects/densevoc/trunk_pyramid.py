"""A feature pyramid on the maps of a convolutional trunk that others have computed already.

Lin et al., "Feature Pyramid Networks for Object Detection" (CVPR 2017): every map is brought to one width, each takes
the coarser one's sum in, and a 3x3 convolution smooths what comes of it. It stands in for the ViT and its pyramid where
a trunk's maps are at hand: one pass of the tower then serves the detector as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["TrunkPyramid", "TrunkPyramidConfig"]


@dataclass(frozen=True)
class TrunkPyramidConfig:
    """Sizes of a `TrunkPyramid`; the defaults fit the maps of the embedded tower.

    Attributes:
        channels: of the trunk's maps, finest first; each map has half the sides of the one before.
        width: C, of all levels.
        groups: of the group norms, a divisor of `width`.
    """

    channels: tuple[int, ...] = (40, 112, 320)
    width: int = 64
    groups: int = 8

    def __post_init__(self) -> None:
        """Check the sizes against each other."""
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels or min(*self.channels, self.width, self.groups) < 1:
            raise ValueError(f"a pyramid needs a map at least, and sizes from 1 on: {self.to_dict()}")
        if self.width % self.groups:
            raise ValueError(f"width {self.width} is not a multiple of groups {self.groups}; change one of them")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; `TrunkPyramidConfig(**values)` restores the config."""
        return asdict(self)


class TrunkPyramid(nn.Module):
    """Levels of one width from the maps of a trunk."""

    def __init__(self, config: TrunkPyramidConfig | None = None) -> None:
        """Random weights; None = the sizes of the embedded tower."""
        super().__init__()
        self.config = config = config or TrunkPyramidConfig()
        # Maps of a trunk differ in size by a factor of four; the norm makes them alike before they are added.
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, config.width, 1), nn.GroupNorm(config.groups, config.width))
            for channels in config.channels
        )
        self.smooth = nn.ModuleList(nn.Conv2d(config.width, config.width, 3, padding=1) for _ in config.channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C, h, w), finest first, of maps (B, C_k, h, w) in the order of the config's channels.

        Raises:
            ValueError: another number of maps or channels.
        """
        given = tuple(level.shape[1] for level in maps)
        if given != self.config.channels:
            raise ValueError(f"this pyramid reads maps of {self.config.channels} channels, but was given {given}")
        merged: list[Tensor] = []
        for lateral, level in zip(reversed(self.lateral), reversed(maps), strict=True):
            sums = lateral(level)
            if merged:
                sums = sums + F.interpolate(merged[-1], sums.shape[2:], mode="nearest")
            merged.append(sums)
        return [smooth(level) for smooth, level in zip(self.smooth, reversed(merged), strict=True)]
