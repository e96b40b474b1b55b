"""Sizes and options of the video captioners of Streaming DVC: the dense model and the paragraph model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from onlooker.operators.caption.contexts import StreamingOptions
from onlooker.operators.caption.git import GitConfig
from onlooker.operators.caption.time_tokens import TimeTokens
from onlooker.operators.tower.vit import PIXEL_MEAN, PIXEL_STD, VitConfig

MemoryMethod = Literal["kmeans", "temporal_mean_pool", "spatial_mean_pool", "ema", "adjacent_tome", "none"]
MemoryPoints = Literal["given_checkpoints", "per_frame_and_gather", "fixed_checkpoints"]


@dataclass(frozen=True)
class FrameEncoderConfig:
    """From frames to tokens.

    Attributes:
        vision: the trunk.
        num_frames: T, frames of a video.
        temporal_embedding: add a learnt vector to all tokens of a frame, by its number.
        frozen: no gradient reaches the trunk.
        pixel_mean: subtracted from the pixels, 0 to 255.
        pixel_std: by which they are then divided.
    """

    vision: VitConfig = field(default_factory=VitConfig)
    num_frames: int = 64
    temporal_embedding: bool = False
    frozen: bool = False
    pixel_mean: tuple[float, float, float] = PIXEL_MEAN
    pixel_std: tuple[float, float, float] = PIXEL_STD

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_frames < 1:
            raise ValueError(f"num_frames {self.num_frames} must be at least 1")


@dataclass(frozen=True)
class MemoryConfig:
    """How a video is summarised for the decoder.

    Attributes:
        method: `kmeans` is the paper's; the others are what it was compared with (see `memory.alternatives`).
        points: of a dense model, where and how its memories are made. `given_checkpoints`: after the frames that the
            training data names, in training; after frames at equal distances, else. `per_frame_and_gather`: always
            after frames at equal distances. `fixed_checkpoints`: the same, but each memory is made from scratch from
            all tokens so far, as in a video that ends there.
        size: K, tokens of the memory, for the methods that have a fixed number.
        iterations: K-means steps per update.
        momentum: K-means centres weigh as much as the tokens they stand for.
        decay: weight of the past in `ema`.
    """

    method: MemoryMethod = "kmeans"
    points: MemoryPoints = "given_checkpoints"
    size: int = 514
    iterations: int = 2
    momentum: bool = True
    decay: float = 0.9

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.method in ("kmeans", "adjacent_tome") and self.size < 1:
            raise ValueError(f"memory method {self.method!r} needs a size of at least 1, got {self.size}")
        if self.method == "kmeans" and self.iterations < 1:
            raise ValueError(f"memory method 'kmeans' needs at least 1 iteration, got {self.iterations}")


@dataclass(frozen=True)
class SearchConfig:
    """How texts are searched: greedily (then `beam` and `alpha` are ignored), or with beams and a brevity penalty."""

    method: Literal["greedy", "beam"] = "beam"
    beam: int = 4
    alpha: float = 0.6

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.beam < 1:
            raise ValueError(f"beam {self.beam} must be at least 1")


@dataclass(frozen=True)
class DenseConfig:
    """A dense captioner: several decoding points, each writing timed captions.

    Attributes:
        encoder: None = the model has no trunk and is given the tokens of a tower.
        decoder: its vocabulary ends with the time tokens.
        num_bins: Q, number of time tokens.
        max_length: L, positions of an output and of its context, begin and end included.
        train_points: P, decoding points in training.
        test_points: P, decoding points else.
        context: what a point sees of the earlier ones.
        spans: memory tokens tell when they were seen, see `spans`; the decoder's `visual_width` is then D + 2 Q. Not
            in the paper.
    """

    encoder: FrameEncoderConfig | None = field(default_factory=FrameEncoderConfig)
    decoder: GitConfig = field(default_factory=GitConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    context: StreamingOptions = field(default_factory=StreamingOptions)
    spans: bool = False
    num_bins: int = 64
    max_length: int = 256
    train_points: int = 16
    test_points: int = 2

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        _check_decoder(self.encoder, self.decoder, self.max_length, 2 * self.num_bins if self.spans else 0)
        if self.spans and self.memory.points == "fixed_checkpoints":
            raise ValueError("spans need a memory that is updated frame by frame, not points 'fixed_checkpoints'")
        for name in ("train_points", "test_points"):
            points = getattr(self, name)
            if points < 1 or (self.encoder is not None and points > self.encoder.num_frames):
                raise ValueError(f"{name} {points} must lie between 1 and the number of frames")
        if not 2 <= self.num_bins < self.decoder.vocab_size:
            raise ValueError(f"num_bins {self.num_bins} does not leave words in {self.decoder.vocab_size} tokens")

    @property
    def token_width(self) -> int:
        """D, width of the tower's tokens."""
        return self.decoder.visual_width - (2 * self.num_bins if self.spans else 0)

    @property
    def times(self) -> TimeTokens:
        """The time tokens, the last Q of the vocabulary."""
        return TimeTokens(self.decoder.vocab_size - self.num_bins, self.num_bins)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DenseConfig:
        """The config that `to_dict` wrote; missing values take their defaults."""
        rest = dict(values)
        parts = _parts(rest) | {"context": StreamingOptions(**rest.pop("context", {}))}
        return cls(**parts, **rest)


@dataclass(frozen=True)
class ParagraphConfig:
    """A paragraph captioner: one text about a whole video; attributes as in `DenseConfig`."""

    encoder: FrameEncoderConfig = field(default_factory=lambda: FrameEncoderConfig(temporal_embedding=True))
    decoder: GitConfig = field(default_factory=lambda: GitConfig(vocab_size=30522))
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    max_length: int = 128

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        _check_decoder(self.encoder, self.decoder, self.max_length)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ParagraphConfig:
        """The config that `to_dict` wrote; missing values take their defaults."""
        rest = dict(values)
        parts = _parts(rest)
        return cls(**parts, **rest)


def _parts(values: dict[str, Any]) -> dict[str, Any]:
    """The nested configs of both models, taken out of `values`."""
    parts: dict[str, Any] = {}
    if "encoder" in values:
        encoder = values.pop("encoder")
        parts["encoder"] = None if encoder is None else _encoder(encoder)
    kinds = {"decoder": GitConfig, "memory": MemoryConfig, "search": SearchConfig}
    return parts | {name: kind(**values.pop(name)) for name, kind in kinds.items() if name in values}


def _encoder(values: Mapping[str, Any]) -> FrameEncoderConfig:
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return FrameEncoderConfig(**{**plain, "vision": VitConfig(**values.get("vision", {}))})


def _check_decoder(
    encoder: FrameEncoderConfig | None, decoder: GitConfig, max_length: int, span_width: int = 0
) -> None:
    if encoder is not None and decoder.visual_width != encoder.vision.width + span_width:
        spans = f" and spans add {span_width}" if span_width else ""
        raise ValueError(
            f"the decoder takes tokens of width {decoder.visual_width} but the trunk makes "
            f"{encoder.vision.width}{spans}"
        )
    if decoder.visual_width <= span_width:
        raise ValueError(f"visual_width {decoder.visual_width} must be more than the {span_width} values of spans")
    if not 3 <= max_length <= decoder.max_positions:
        raise ValueError(f"max_length {max_length} must lie in 3..{decoder.max_positions}, the decoder's positions")
