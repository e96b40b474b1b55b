"""Sizes and options of the detector of Dense VOC, as plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

# Known as BGR, applied to RGB: so the reference does it, and so its weights were trained.
PIXEL_MEAN = (103.530, 116.280, 123.675)
PIXEL_STD = (57.375, 57.120, 58.395)


def tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with lists, which JSON has, as the tuples that frozen configurations hold."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


@dataclass(frozen=True)
class BackboneConfig:
    """A plain ViT with a simple feature pyramid (Li et al., "ViTDet", ECCV 2022); the defaults are ViT-B/16.

    Attributes:
        image_size: side in pixels that the tables of relative positions of global blocks are for.
        patch_size: side of a patch in pixels.
        width: of a token.
        num_layers: transformer blocks.
        num_heads: of attention.
        mlp_ratio: inner width of the feed-forward part in multiples of `width`.
        window_size: patches along a side of a window.
        window_blocks: numbers of the blocks that see one window at a time; the others see all of the picture.
        pretrain_size: side in pixels that the learnt positions are for.
        drop_path: probability of dropping a residual branch of the last block in training; it grows linearly from 0.
        scales: levels made from the tokens, as multiples of their resolution: of 4, 2, 1 and .5, fine to coarse.
        top_blocks: 2 for two more levels by convolutions of stride 2, else 0.
        pyramid_width: of which finer levels have a half, then a quarter, until they are made. The reference's is 768
            whatever `width` is; None = `width`.
    """

    image_size: int = 384
    patch_size: int = 16
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    window_size: int = 14
    window_blocks: tuple[int, ...] = (0, 1, 3, 4, 6, 7, 9, 10)
    pretrain_size: int = 224
    drop_path: float = 0.1
    scales: tuple[float, ...] = (2.0, 1.0, 0.5)
    top_blocks: int = 2
    pyramid_width: int | None = None

    def __post_init__(self) -> None:
        """Check the sizes against each other."""
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}; change one of them")
        if not self.scales or set(self.scales) - {4.0, 2.0, 1.0, 0.5} or sorted(self.scales)[::-1] != [*self.scales]:
            raise ValueError(f"scales {self.scales} must be some of 4, 2, 1 and .5, in this order")
        if self.top_blocks not in (0, 2):
            raise ValueError(f"top_blocks {self.top_blocks} must be 0 or 2")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path {self.drop_path} must be at least 0 and below 1")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between the cells of each level, fine to coarse."""
        made = [int(self.patch_size / scale) for scale in self.scales]
        return (*made, *(made[-1] * 2 ** (block + 1) for block in range(self.top_blocks)))


@dataclass(frozen=True)
class ProposalConfig:
    """The class-agnostic CenterNet head (Zhou et al., "Probabilistic two-stage detection", 2021).

    Attributes:
        width: channels of its tower, a multiple of `groups`.
        num_layers: convolutions of the tower, which all levels share.
        groups: of its group norms.
        nms_threshold: overlap from which the weaker of two proposals falls.
        candidates: cells per picture that are looked at, over all levels.
        proposals: K, kept of those.
        train_candidates: the same in training.
        train_proposals: the same in training.
    """

    width: int = 256
    num_layers: int = 4
    groups: int = 32
    nms_threshold: float = 0.9
    candidates: int = 1000
    proposals: int = 256
    train_candidates: int = 2000
    train_proposals: int = 1000

    def __post_init__(self) -> None:
        """Check the sizes against each other."""
        if self.width % self.groups:
            raise ValueError(f"width {self.width} is not a multiple of groups {self.groups}; change one of them")
        least = min(self.candidates, self.proposals, self.train_candidates, self.train_proposals)
        if least < 1 or self.num_layers < 0:
            raise ValueError("candidates and proposals must be at least 1, num_layers at least 0")


@dataclass(frozen=True)
class RoiConfig:
    """The box heads of the second stage (Cai and Vasconcelos, "Cascade R-CNN", CVPR 2018).

    Attributes:
        num_classes: of objects, without the background.
        widths: of the fully connected layers of a head.
        resolution: bins along a side of a region that a head reads.
        match_thresholds: one for each stage: overlap with a true box from which a region is an object, in training.
        nms_threshold: overlap from which the weaker of two detections falls.
        score_threshold: detections up to it get the score -1.
        detections: N, places for detections of a picture.
        use_proposal_score: a detection's score is the geometric mean of its own and its proposal's.
        second_chance: places that are left go to detections that fell, with a small score.
    """

    num_classes: int = 1
    widths: tuple[int, ...] = (1024, 1024)
    resolution: int = 7
    match_thresholds: tuple[float, ...] = (0.6,)
    nms_threshold: float = 0.5
    score_threshold: float = 0.05
    detections: int = 16
    use_proposal_score: bool = True
    second_chance: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= len(self.match_thresholds) <= 3:
            raise ValueError(f"match_thresholds {self.match_thresholds} must be 1 to 3, one for each stage")
        if min(self.num_classes, self.resolution, self.detections) < 1 or not self.widths:
            raise ValueError("num_classes, resolution, detections and the number of widths must be at least 1")


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes and options of a `Detector`; the defaults are the published model.

    Attributes:
        backbone: None for a detector whose pyramid somebody else makes.
        channels: C, of every level.
        strides: pixels between cells of each level, fine to coarse: powers of two, each twice the one before.
        canonical_size: side in pixels of the boxes that are pooled from the level of stride 16, up to twice that side.
        proposals: the first stage.
        roi: the second stage.
        pixel_mean: subtracted from pixels, 0 to 255.
        pixel_std: by which they are then divided.
    """

    backbone: BackboneConfig | None = field(default_factory=BackboneConfig)
    channels: int = 256
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    canonical_size: float = 224.0
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    roi: RoiConfig = field(default_factory=RoiConfig)
    pixel_mean: tuple[float, float, float] = PIXEL_MEAN
    pixel_std: tuple[float, float, float] = PIXEL_STD

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        powers = all(stride >= 1 and stride & (stride - 1) == 0 for stride in self.strides)
        doubled = all(fine * 2 == coarse for fine, coarse in zip(self.strides, self.strides[1:], strict=False))
        if not self.strides or not powers or not doubled:
            raise ValueError(f"strides {self.strides} must be powers of two, each twice the one before")
        if self.backbone is not None and self.backbone.strides != self.strides:
            raise ValueError(f"strides {self.strides} are not the backbone's, which are {self.backbone.strides}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that `to_dict` told.

        Raises:
            TypeError: a value has no place here.
        """
        parts: dict[str, type[Any]] = {"backbone": BackboneConfig, "proposals": ProposalConfig, "roi": RoiConfig}
        given = tuples(values)
        for name, part in parts.items():
            if given.get(name) is not None:
                given[name] = part(**tuples(given[name]))
        unknown = given.keys() - {each.name for each in fields(cls)}
        if unknown:
            raise TypeError(f"a detector has no {', '.join(sorted(unknown))}")
        return cls(**given)
