"""Sizes and options of an UnLoc model (Yan et al., "UnLoc", ICCV 2023), as plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Task = Literal["moment_retrieval", "highlight_detection", "temporal_localization", "action_segmentation"]
TASKS: tuple[Task, ...] = (
    "moment_retrieval",
    "highlight_detection",
    "temporal_localization",
    "action_segmentation",
)


def level_lengths(frames: int, levels: int, stride: int) -> tuple[int, ...]:
    """Time steps of each level of the pyramid, fine to coarse: floor(T / stride^level)."""
    return tuple(frames // stride**level for level in range(levels))


@dataclass(frozen=True)
class ImageTowerConfig:
    """CLIP's image side, which sees every frame alone.

    Attributes:
        width: of a token.
        layers: transformer blocks.
        heads: of attention.
        patch: side of a patch in pixels.
        patches: patches of a frame; frames of any shape with that many will do.
        pool: a frame is its class token, one learnt per place in time (`token`), or the mean patch (`gap`).
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 16
    patches: int = 196
    pool: Literal["token", "gap"] = "token"

    def __post_init__(self) -> None:
        """Check the sizes."""
        _check_heads(self.width, self.heads)
        _check_least(self, width=1, layers=0, patch=1, patches=1)


@dataclass(frozen=True)
class TextTowerConfig:
    """CLIP's text side.

    Attributes:
        vocabulary: rows of the word embedding; the end of a text has the largest id, 0 fills up.
        width: of a token.
        layers: transformer blocks.
        heads: of attention.
        length: tokens of a text, with its begin and end.
        pool: a text is the token of its largest id (`eos`), its first token, or the mean of its tokens (`gap`).
    """

    vocabulary: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    length: int = 32
    pool: Literal["eos", "token", "gap"] = "eos"

    def __post_init__(self) -> None:
        """Check the sizes."""
        _check_heads(self.width, self.heads)
        _check_least(self, vocabulary=1, width=1, layers=0, length=1)


@dataclass(frozen=True)
class FusionConfig:
    """The transformer that reads a video together with one text, and the pyramid made of it.

    Attributes:
        width: d, of a token.
        heads: of attention.
        mlp_width: inner width of the feed-forward parts.
        layers: transformer blocks.
        kind: `transformer` has one level and a norm at its end; `simple_pyramid` makes its levels of the last block's
            output by convolutions; `fpn` of several blocks' outputs, between which it downsamples.
        levels: n, of the pyramid.
        pyramid_blocks: of an `fpn`, the block after which each level is taken; the last level's is the last block.
        stride: time steps of a level that become one of the next.
        downsample: how an `fpn` does it; `conv` and `depthwise_conv` have a kernel of 3.
        positions: codes added to the sequence, text included.
        all_text_tokens: read every token of a text instead of its pooled one.
        text_length: tokens of a text in the sequence, for learnt positions; 1 without `all_text_tokens`.
    """

    width: int = 512
    heads: int = 8
    mlp_width: int = 2048
    layers: int = 6
    kind: Literal["transformer", "simple_pyramid", "fpn"] = "simple_pyramid"
    levels: int = 4
    pyramid_blocks: tuple[int, ...] = ()
    stride: int = 2
    downsample: Literal["max_pool", "avg_pool", "subsample", "depthwise_conv", "conv"] = "max_pool"
    positions: Literal["sinusoid", "learned", "none"] = "sinusoid"
    all_text_tokens: bool = False
    text_length: int = 1

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        _check_heads(self.width, self.heads)
        _check_least(self, mlp_width=1, layers=1, levels=1, stride=1, text_length=1)
        if self.kind == "transformer" and self.levels != 1:
            raise ValueError(f"a transformer has one level, not {self.levels}: choose simple_pyramid or fpn for more")
        if self.kind == "fpn":
            blocks = self.pyramid_blocks
            if len(blocks) != self.levels or list(blocks) != sorted(set(blocks)) or min(blocks, default=0) < 0:
                raise ValueError(f"pyramid_blocks {blocks} must be {self.levels} increasing indexes, one per level")
            if blocks[-1] != self.layers - 1:
                raise ValueError(f"the last of pyramid_blocks {blocks} must be the last of the {self.layers} blocks")
        elif self.pyramid_blocks:
            raise ValueError(f"pyramid_blocks belong to an fpn, not to a {self.kind}: leave them out")
        if self.text_length != 1 and not self.all_text_tokens:
            raise ValueError(f"text_length {self.text_length} needs all_text_tokens: a pooled text is one token")


@dataclass(frozen=True)
class HeadConfig:
    """What makes scores and boundaries of fused tokens.

    Attributes:
        kind: `localization` tells a logit and two displacements per step, `linear` a logit.
        convs: layers of norm, convolution and ReLU before the output.
        shared: all levels have the same weights, and a scale and shift of their own for displacements.
        class_bias: first value of the logit's bias.
        box_bias: first value of the displacements' bias.
        normalizer: what keeps displacements from being negative, or within 0 to 1.
        per_class_displacements: otherwise all texts of a video share theirs, of the mean of their tokens.
        kernel: steps that a convolution sees.
    """

    kind: Literal["localization", "linear"] = "localization"
    convs: int = 3
    shared: bool = True
    class_bias: float = 0.0
    box_bias: float = 2.0
    normalizer: Literal["relu", "relu_clip", "sigmoid"] = "relu"
    per_class_displacements: bool = True
    kernel: int = 3

    def __post_init__(self) -> None:
        """Check the sizes."""
        _check_least(self, convs=0, kernel=1)


@dataclass(frozen=True)
class UnlocConfig:
    """A whole model.

    Attributes:
        task: decides which texts meet which videos, and the layout of what comes out.
        frames: T, of a window.
        image: None = videos come as features of another tower.
        text: None = texts come as features of another tower.
        video_width: of the features of a frame; with an image tower, its width.
        text_width: of the features of a text; with a text tower, its width.
        fusion: the transformer.
        head: what comes after it.
        project_video: a learnt projection to the fusion's width.
        project_text: the same for texts; None = only where the widths differ, or there is a text tower.
        projection_bias: projections have a bias.
        similarity: the tower's own similarity of frame and text is an input too; see `similarity.py`.
        adapter: with `similarity`, hidden width of what fits the tower's features to the task; 0 = nothing does.
        freeze_image: the image tower gets no gradient.
        freeze_text: the text tower gets none.
    """

    task: Task = "moment_retrieval"
    frames: int = 128
    image: ImageTowerConfig | None = None
    text: TextTowerConfig | None = None
    video_width: int = 768
    text_width: int = 512
    fusion: FusionConfig = field(default_factory=FusionConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    project_video: bool = True
    project_text: bool | None = None
    projection_bias: bool = False
    similarity: bool = False
    adapter: int = 0
    freeze_image: bool = False
    freeze_text: bool = False

    def __post_init__(self) -> None:
        """Settle what follows from other values, and check all against each other."""
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is none of {', '.join(TASKS)}")
        if self.project_text is None:
            needed = self.text is not None or self.text_width != self.fusion.width
            object.__setattr__(self, "project_text", needed)
        self._check_widths()
        coarsest = self.fusion.stride ** (self.fusion.levels - 1)
        # Convolutions round lengths up and masks round them down: steps would no longer meet their mask.
        rounds_up = self.fusion.kind == "simple_pyramid" or self.fusion.downsample.endswith("conv")
        if self.frames < coarsest or (rounds_up and self.frames % coarsest):
            raise ValueError(f"frames {self.frames} must be a multiple of {coarsest}, stride^(levels - 1)")
        if self.fusion.all_text_tokens and self.text is not None and self.fusion.text_length != self.text.length:
            raise ValueError(f"text_length {self.fusion.text_length} must be the text tower's {self.text.length}")
        if self.head.kind == "linear" and self.fusion.levels != 1:
            raise ValueError(f"a linear head reads one level, not {self.fusion.levels}")

    @property
    def steps(self) -> int:
        """N, time steps of all levels."""
        return sum(self.level_lengths)

    @property
    def level_lengths(self) -> tuple[int, ...]:
        """Time steps of each level, fine to coarse."""
        return level_lengths(self.frames, self.fusion.levels, self.fusion.stride)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; `from_dict` restores the config."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UnlocConfig:
        """The config of `to_dict`'s values.

        Raises:
            TypeError: unknown or missing names.
            ValueError: values that cannot be.
        """
        given = dict(values)
        fusion = dict(given.pop("fusion"))
        fusion["pyramid_blocks"] = tuple(fusion.get("pyramid_blocks", ()))
        image, text = given.pop("image", None), given.pop("text", None)
        return cls(
            image=None if image is None else ImageTowerConfig(**image),
            text=None if text is None else TextTowerConfig(**text),
            fusion=FusionConfig(**fusion),
            head=HeadConfig(**given.pop("head")),
            **given,
        )

    def _check_widths(self) -> None:
        if self.similarity and (self.image or self.text or self.video_width != self.text_width):
            raise ValueError("similarity compares features of frames and texts of one tower, which come in as features")
        for part, tower, width in (("video", self.image, self.video_width), ("text", self.text, self.text_width)):
            if tower is not None and tower.width != width:
                raise ValueError(f"{part}_width {width} must be the width of its tower, {tower.width}")
        for part, projected, width in (
            ("video", self.project_video, self.video_width),
            ("text", self.project_text, self.text_width),
        ):
            if not projected and width != self.fusion.width:
                raise ValueError(f"{part} tokens of width {width} need project_{part} to be {self.fusion.width} wide")


def _check_heads(width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}; change one of them")


def _check_least(config: object, **least: int) -> None:
    for name, value in least.items():
        if getattr(config, name) < value:
            raise ValueError(f"{name} {getattr(config, name)} must be at least {value}")
