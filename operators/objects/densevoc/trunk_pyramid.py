"""A feature pyramid on the maps of a convolutional trunk that others have computed already.

Lin et al., "Feature Pyramid Networks for Object Detection" (CVPR 2017): every map is brought to one width, each takes
the coarser one's sum in, and a 3x3 convolution smooths what comes of it. It stands in for the ViT and its pyramid where
a trunk's maps are at hand: one pass of the tower then serves the detector as well.

A trunk that stays as it is cannot learn to detect, so what is trained on it has to (Vasconcelos et al., "Proper reuse
of image classification features improves object detection", CVPR 2022): with `blocks`, residual bottlenecks (He et al.,
CVPR 2016) work on each level, and a second way leads back from fine to coarse (Liu et al., "Path aggregation network
for instance segmentation", CVPR 2018).
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
    """Sizes of a `TrunkPyramid`; the defaults are the plain one for three maps of the embedded tower.

    Attributes:
        channels: of the trunk's maps that become levels, finest first; each has half the sides of the one before.
        width: C, of all levels.
        groups: of the group norms, a divisor of all widths.
        detail: channels of a map before those, twice as fine as the first: it is no level, but the finest one takes in
            what it tells. 0 = there is none.
        inner: width inside; 0 = `width`.
        bottleneck: width inside the blocks.
        blocks: on the way from coarse to fine, for each level; empty = none, and no way back either, which has one for
            each level but the finest.
    """

    channels: tuple[int, ...] = (40, 112, 320)
    width: int = 64
    groups: int = 8
    detail: int = 0
    inner: int = 0
    bottleneck: int = 64
    blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the sizes against each other."""
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        sizes = (*self.channels, self.width, self.groups, self.bottleneck)
        if not self.channels or min(sizes) < 1 or min(self.detail, self.inner, *self.blocks, 0) < 0:
            raise ValueError(f"a pyramid needs a map at least, and sizes from 1 on: {self.to_dict()}")
        for name in ("width", "inner", "bottleneck"):
            if (size := getattr(self, name)) % self.groups:
                raise ValueError(f"{name} {size} is not a multiple of groups {self.groups}; change one of them")
        if self.blocks and len(self.blocks) != len(self.channels):
            raise ValueError(
                f"blocks {self.blocks} must be one number for each of {len(self.channels)} levels, or none"
            )

    @property
    def maps(self) -> tuple[int, ...]:
        """Channels of all maps that are read, finest first."""
        return (self.detail, *self.channels) if self.detail else self.channels

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; `TrunkPyramidConfig(**values)` restores the config."""
        return asdict(self)


class TrunkPyramid(nn.Module):
    """Levels of one width from the maps of a trunk."""

    def __init__(self, config: TrunkPyramidConfig | None = None) -> None:
        """Random weights; None = the default sizes."""
        super().__init__()
        self.config = config = config or TrunkPyramidConfig()
        inner = config.inner or config.width
        # Maps of a trunk differ in size by a factor of four; the norm makes them alike before they are added.
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, inner, 1), nn.GroupNorm(config.groups, inner))
            for channels in config.channels
        )
        self.detail = None
        if config.detail:
            shrink = nn.Conv2d(config.detail, inner, 3, stride=2, padding=1)
            self.detail = nn.Sequential(shrink, nn.GroupNorm(config.groups, inner))
        counts = config.blocks or (0,) * len(config.channels)
        self.blocks = nn.ModuleList(nn.Sequential(*(_block(config) for _ in range(count))) for count in counts)
        self.back = nn.ModuleList(_block(config) for _ in config.channels[1:]) if config.blocks else None
        self.smooth = nn.ModuleList(nn.Conv2d(inner, config.width, 3, padding=1) for _ in config.channels)

    def reads(self, channels: Sequence[int]) -> bool:
        """Whether it reads maps of so many channels, finest first; finer ones before its own are no hindrance."""
        return tuple(channels[-len(self.config.maps) :]) == self.config.maps

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C, h, w), finest first, of maps (B, C_k, h, w) of which the last are those of the config.

        Raises:
            ValueError: there are too few maps, or they have other channels.
        """
        if not self.reads(given := tuple(level.shape[1] for level in maps)):
            raise ValueError(f"this pyramid reads maps of {self.config.maps} channels, but was given {given}")
        own = maps[len(maps) - len(self.lateral) :]
        sums = [lateral(level) for lateral, level in zip(self.lateral, own, strict=True)]  # B, inner, h, w
        if self.detail is not None:
            sums[0] = sums[0] + self.detail(maps[-1 - len(self.lateral)])
        for k in reversed(range(len(sums))):
            if k + 1 < len(sums):
                sums[k] = sums[k] + F.interpolate(sums[k + 1], sums[k].shape[2:], mode="nearest")
            sums[k] = self.blocks[k](sums[k])
        if self.back is not None:
            for k, block in enumerate(self.back, start=1):
                sums[k] = block(sums[k] + F.adaptive_max_pool2d(sums[k - 1], sums[k].shape[2:]))
        return [smooth(level) for smooth, level in zip(self.smooth, sums, strict=True)]


class _Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1, whose result is added."""

    def __init__(self, width: int, inside: int, groups: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, inside, 1, bias=False)
        self.reduce_norm = nn.GroupNorm(groups, inside)
        self.mix = nn.Conv2d(inside, inside, 3, padding=1, bias=False)
        self.mix_norm = nn.GroupNorm(groups, inside)
        self.expand = nn.Conv2d(inside, width, 1)
        # What passes is little changed at first, however many blocks there are.
        nn.init.normal_(self.expand.weight, std=0.01)
        assert self.expand.bias is not None
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same."""
        inside = F.relu(self.reduce_norm(self.reduce(x)))
        added: Tensor = self.expand(F.relu(self.mix_norm(self.mix(inside))))
        return x + added


def _block(config: TrunkPyramidConfig) -> _Bottleneck:
    return _Bottleneck(config.inner or config.width, config.bottleneck, config.groups)
