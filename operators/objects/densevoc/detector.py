"""The detector of Dense VOC: a pyramid of features, proposals, and the objects among them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from .boxes import clip_boxes
from .centernet import CenterNetHead, ProposalMaps, Proposals, find_peaks, keep_proposals
from .config import DetectorConfig
from .pyramid import SimplePyramid
from .roi_align import roi_align
from .roi_heads import Detected, RoiHeads

Size = tuple[int, int]


class Detector(nn.Module):
    """Objects of any class in pictures.

    Levels are maps (B, C, h, w), fine to coarse, at the strides of the configuration: from `pyramid`, or from anybody
    for a detector without a backbone. A size is (H, W) of the pictures in pixels, padding included.
    """

    def __init__(self, config: DetectorConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.config = config
        self.backbone = None if config.backbone is None else SimplePyramid(config.backbone, config.channels)
        self.proposal_generator = CenterNetHead(config.proposals, config.channels, len(config.strides))
        self.roi_heads = RoiHeads(config.roi, config.channels)

    def normalize(self, images: Tensor) -> Tensor:
        """Pictures (B, H, W, 3), RGB from 0 to 255, as what the backbone takes: (B, 3, H, W)."""
        pixels = images.float()
        mean, std = pixels.new_tensor(self.config.pixel_mean), pixels.new_tensor(self.config.pixel_std)
        return ((pixels - mean) / std).movedim(-1, 1).contiguous()

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Levels of pictures (B, H, W, 3), RGB from 0 to 255.

        Raises:
            RuntimeError: the detector has no backbone.
        """
        if self.backbone is None:
            raise RuntimeError("a detector without a backbone makes no pyramid")
        levels: list[Tensor] = self.backbone(self.normalize(images))
        return levels

    def propose(self, levels: Sequence[Tensor], size: Size) -> Proposals:
        """Where objects may be, within the picture: K boxes of each."""
        return self.proposals(self.proposal_generator(levels), size)

    def proposals(self, maps: ProposalMaps, size: Size, *, training: bool = False) -> Proposals:
        """Proposals of the head's maps; in training there are more of them."""
        options = self.config.proposals
        candidates = options.train_candidates if training else options.candidates
        count = options.train_proposals if training else options.proposals
        kept = keep_proposals(find_peaks(maps, self.config.strides, candidates), count, options.nms_threshold)
        side = max(size)  # of both axes, as in the reference
        return Proposals(clip_boxes(kept.boxes, side, side), kept.scores)

    def detect(self, levels: Sequence[Tensor], size: Size, proposals: Proposals | None = None) -> Detected:
        """The objects of each picture; `proposals` are made if there are none."""
        if proposals is None:
            proposals = self.propose(levels, size)
        stages = self.roi_heads(partial(self.pool, levels), proposals.boxes, size)
        return self.roi_heads.detect(stages, size, proposals.scores)

    def pool(self, levels: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
        """Features of boxes (B, N, 4) in pixels, each from the level that fits it: (B, N, size * size, C)."""
        return roi_align(levels, boxes, self.config.strides, size, self.config.canonical_size)

    def forward(self, images: Tensor) -> Detected:
        """The objects in pictures (B, H, W, 3), RGB from 0 to 255."""
        return self.detect(self.pyramid(images), (images.shape[1], images.shape[2]))
