"""Dense VOC as a whole: objects of a video, which of them are one, and what is said of each.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), in the form that its reference
computes at test time: all frames of one video at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from onlooker.operators.caption.git import GitConfig, GitDecoder

from .aggregation import (
    TrackTokens,
    detection_tokens,
    same_track,
    soft_features,
    soft_weights,
    track_tokens,
    windowed,
)
from .association import Association, AssociationConfig
from .captions import MAX_LENGTH, Captions, write_captions
from .config import DetectorConfig
from .detector import Detector, Size
from .identity import assign_identities
from .roi_heads import Detected
from .trunk_pyramid import TrunkPyramid, TrunkPyramidConfig

__all__ = ["DenseVoc", "DenseVocConfig", "Found", "TrackingConfig"]


@dataclass(frozen=True)
class TrackingConfig:
    """How detections become tracks, and what a caption is told from; the defaults are those for VidSTG.

    Attributes:
        resolution: r, bins along a side of the features of a detection.
        background: detections with a lower score have no features: they are in no track.
        threshold: lowest association score that makes two detections one object.
        aggregation: a caption is told from sampled detections of the track ("hard"), from a mean of all that look
            alike ("soft"), or from the detection alone ("none").
        tracks: K, how many tracks have captions of their own; the later ones are told as the last of them.
        frames: H, detections of a track that are sampled.
        window: with "soft", frames that may lie between two detections; below 0 any two count.
        consistent: with "soft", the mean is over the track, whatever the scores and the window are.
        max_length: L, tokens of a caption with begin and end.
    """

    resolution: int = 7
    background: float = 0.1
    threshold: float = 0.7
    aggregation: Literal["hard", "soft", "none"] = "hard"
    tracks: int = 32
    frames: int = 6
    window: int = 8
    consistent: bool = False
    max_length: int = MAX_LENGTH

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.aggregation not in ("hard", "soft", "none"):
            raise ValueError(f"aggregation is hard, soft or none, not {self.aggregation!r}")
        if min(self.resolution, self.tracks, self.frames) < 1 or self.max_length < 3:
            raise ValueError("resolution, tracks and frames must be at least 1, max_length at least 3")
        if not self.threshold > 0:
            raise ValueError(f"threshold {self.threshold} must be above 0")


@dataclass(frozen=True)
class DenseVocConfig:
    """Sizes and options of a `DenseVoc`; the defaults are the published model.

    Attributes:
        detector: see there.
        trunk: the pyramid on maps that somebody else's trunk made, for a detector without a backbone.
        association: None for a model that does not follow objects.
        captioner: None for a model that does not describe them.
        tracking: see there.
    """

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    trunk: TrunkPyramidConfig | None = None
    association: AssociationConfig | None = field(default_factory=AssociationConfig)
    captioner: GitConfig | None = field(default_factory=lambda: GitConfig(vocab_size=30522, visual_width=256))
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        channels = self.detector.channels
        if self.trunk is not None and self.detector.backbone is not None:
            raise ValueError("a model has a backbone of its own or reads a trunk's maps: drop one of them")
        if self.trunk is not None and self.trunk.width != channels:
            raise ValueError(f"the trunk's pyramid has {self.trunk.width} channels, the detector reads {channels}")
        size = self.tracking.resolution**2 * channels
        if self.association is not None and self.association.feature_size != size:
            raise ValueError(f"features have {size} numbers, the association reads {self.association.feature_size}")
        if self.captioner is not None and self.captioner.visual_width != channels:
            raise ValueError(f"the captioner reads {self.captioner.visual_width} channels, features have {channels}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that `to_dict` told.

        Raises:
            TypeError: a value has no place here.
        """
        parts: dict[str, Any] = {
            "detector": DetectorConfig.from_dict,
            "trunk": lambda part: TrunkPyramidConfig(**part),
            "association": lambda part: AssociationConfig(**part),
            "captioner": lambda part: GitConfig(**part),
            "tracking": lambda part: TrackingConfig(**part),
        }
        given = {
            name: parts[name](value) if name in parts and value is not None else value for name, value in values.items()
        }
        return cls(**given)


@dataclass(frozen=True)
class Found:
    """The objects of T frames of one video, N places each.

    Attributes:
        detected: boxes, scores and classes.
        features: (T, N, r * r, C), zeros for the background.
        scores: (M, M) association of all M = T * N, None without an association.
        identities: (T, N) int64, 0 = in no track; None without an association.
        tracks: the tokens of the tracks; None without an association, or where aggregation is not "hard".
    """

    detected: Detected
    features: Tensor
    scores: Tensor | None
    identities: Tensor | None
    tracks: TrackTokens | None


class DenseVoc(nn.Module):
    """Detects, follows and describes; what its config leaves out it has not."""

    def __init__(self, config: DenseVocConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        self.detector = Detector(config.detector)
        self.trunk = None if config.trunk is None else TrunkPyramid(config.trunk)
        self.association = None if config.association is None else Association(config.association)
        self.captioner = None if config.captioner is None else GitDecoder(config.captioner)

    def levels(self, given: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """The pyramid (T, C, h, w), fine to coarse, of pictures (T, H, W, 3) from 0 to 255, or of a trunk's maps.

        Maps are (T, C_k, h, w), finest first, for a model with a `trunk`.

        Raises:
            TypeError: the model takes the other.
        """
        if isinstance(given, Tensor):
            if self.detector.backbone is None:
                raise TypeError("a model without a backbone reads a trunk's maps, not pictures")
            return self.detector.pyramid(given)
        if self.trunk is None:
            raise TypeError("a model without a pyramid for a trunk reads pictures, not maps")
        levels: list[Tensor] = self.trunk(given)
        return levels

    @torch.no_grad()
    def forward(self, images: Tensor) -> Found:
        """The objects of a video (T, H, W, 3), RGB from 0 to 255; for maps of a trunk see `find`."""
        return self.find(self.levels(images), (images.shape[1], images.shape[2]))

    @torch.no_grad()
    def find(self, levels: Sequence[Tensor], size: Size) -> Found:
        """The objects of a video of which there are `levels`, of frames of `size` (H, W) in pixels."""
        detected = self.detector.detect(levels, size)
        features = self.detector.pool(levels, detected.boxes, self.config.tracking.resolution)
        return self.follow(detected, features)

    @torch.no_grad()
    def follow(self, detected: Detected, features: Tensor) -> Found:
        """Tracks out of detections and their features (T, N, r * r, C)."""
        options = self.config.tracking
        features = features * (detected.scores >= options.background)[..., None, None]
        if self.association is None:
            return Found(detected, features, None, None, None)
        scores = self.association.scores(features)
        assigned = assign_identities(scores.cpu().numpy(), len(features), options.threshold)
        identities = torch.from_numpy(assigned).to(features.device).view(features.shape[:2])
        tracks = None
        if options.aggregation == "hard":
            tracks = track_tokens(features, identities, options.tracks, options.frames)
        return Found(detected, features, scores, identities, tracks)

    def evidence(self, found: Found) -> TrackTokens:
        """What the caption of every detection is told from: tokens (T, N, S or H * S, C) and their mask."""
        options, features = self.config.tracking, found.features
        if found.tracks is not None and found.identities is not None:
            return detection_tokens(features, found.identities, found.tracks)
        if options.aggregation == "soft" and found.scores is not None and found.identities is not None:
            scores = (
                same_track(found.identities.flatten())
                if options.consistent
                else windowed(found.scores, len(features), options.window)
            )
            features = soft_features(features, soft_weights(scores))
        return TrackTokens(features, features.new_ones(features.shape[:-1], dtype=torch.bool))

    @torch.no_grad()
    def describe(self, found: Found) -> Captions:
        """The caption of every detection, of its track where it has one; detections of a track share it.

        Raises:
            RuntimeError: the model has no captioner.
        """
        captioner, length = self._captioner(), self.config.tracking.max_length
        if found.tracks is None or found.identities is None:
            given = self.evidence(found)
            return write_captions(captioner, given.tokens, given.mask, length)
        # Each track once, then detections without one: far fewer texts than detections.
        index = found.identities.clamp(max=len(found.tracks.mask))
        told, place = index[index > 0].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        tracks = write_captions(captioner, found.tracks.tokens[told - 1], found.tracks.mask[told - 1], length)
        alone = write_captions(captioner, found.features[index == 0], None, length)
        tokens = index.new_empty(*index.shape, length)
        logprobs = found.features.new_empty(index.shape)
        tokens[index > 0], logprobs[index > 0] = tracks.tokens[place], tracks.logprobs[place]
        tokens[index == 0], logprobs[index == 0] = alone.tokens, alone.logprobs
        return Captions(tokens, logprobs)

    def video_tokens(self, levels: Sequence[Tensor], size: Size) -> Tensor:
        """What the caption of a whole video is learnt from: (T * r * r, C), the whole picture of every frame pooled."""
        height, width = size
        picture = levels[0].new_tensor([0.0, 0.0, width, height]).expand(len(levels[0]), 1, 4)
        return self.detector.pool(levels, picture, self.config.tracking.resolution).flatten(0, 2)

    def _captioner(self) -> GitDecoder:
        if self.captioner is None:
            raise RuntimeError("this model has no captioner")
        return self.captioner
