"""The second stage: what lies in a region, and where exactly (Cai and Vasconcelos, "Cascade R-CNN", CVPR 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .boxes import BoxWeights, clip_boxes, decode_boxes, pairwise_iou
from .config import RoiConfig
from .nms import padded_nms

BOX_WEIGHTS: tuple[BoxWeights, ...] = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
"""How finely the boxes of each stage are coded."""

Pooling = Callable[[Tensor, int], Tensor]
"""Features of boxes (B, N, 4) with r bins a side: (B, N, r * r, C)."""


class Stage(NamedTuple):
    """What one box head says of N regions of each picture.

    Attributes:
        anchors: (B, N, 4), the regions.
        logits: (B, N, classes + 1); the first is the background.
        deltas: (B, N, 4), what to add to the anchors.
    """

    anchors: Tensor
    logits: Tensor
    deltas: Tensor


class Detected(NamedTuple):
    """Objects of each picture, by falling score.

    Attributes:
        boxes: (B, N, 4) in pixels. Places that suppression left free hold zeros.
        scores: (B, N): above the threshold, then 0 on free places, then -1 for boxes up to the threshold.
        classes: (B, N) int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class BoxHead(nn.Module):
    """Fully connected layers on the bins of a region."""

    def __init__(self, config: RoiConfig, channels: int) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.depth = len(config.widths)
        inputs = config.resolution**2 * channels
        for number, width in enumerate(config.widths):
            self.add_module(f"fc{number + 1}", nn.Linear(inputs, width))
            inputs = width
        self.cls_score = nn.Linear(inputs, config.num_classes + 1)
        self.bbox_pred = nn.Linear(inputs, 4)
        for name, layer in self.named_children():
            if isinstance(layer, nn.Linear) and not layer.weight.is_meta:
                _init(name, layer)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(..., r * r, C) -> logits (..., classes + 1) and deltas (..., 4)."""
        x = features.flatten(-2)
        for number in range(self.depth):
            x = F.relu(self.get_submodule(f"fc{number + 1}")(x))
        return self.cls_score(x), self.bbox_pred(x)


def _init(name: str, layer: nn.Linear) -> None:
    if name in ("cls_score", "bbox_pred"):
        nn.init.normal_(layer.weight, std=0.01 if name == "cls_score" else 0.001)
    else:
        limit = (3 / layer.in_features) ** 0.5
        nn.init.uniform_(layer.weight, -limit, limit)
    nn.init.zeros_(layer.bias)


class RoiHeads(nn.Module):
    """One box head for each stage."""

    def __init__(self, config: RoiConfig, channels: int) -> None:
        """`channels`: C, of the pyramid."""
        super().__init__()
        self.config = config
        self.box_head = nn.ModuleList(BoxHead(config, channels) for _ in config.match_thresholds)

    def forward(self, pool: Pooling, boxes: Tensor, size: tuple[int, int]) -> list[Stage]:
        """All stages, each on the boxes that the one before made; no gradient goes from one to the next.

        Args:
            pool: the pyramid's features.
            boxes: (B, N, 4), proposals.
            size: (H, W) of the pictures.
        """
        stages = []
        for head, weights in zip(self.box_head, BOX_WEIGHTS, strict=False):
            boxes = boxes.detach()
            logits, deltas = head(pool(boxes, self.config.resolution))
            stages.append(Stage(boxes, logits, deltas))
            boxes = _decoded(deltas, boxes, weights, size)
        return stages

    def detect(self, stages: Sequence[Stage], size: tuple[int, int], proposal_scores: Tensor | None) -> Detected:
        """The objects that the stages found, by the configuration.

        Args:
            stages: of `forward`.
            size: (H, W) of the pictures.
            proposal_scores: (B, N), of the regions; None leaves them out, whatever the configuration says.
        """
        config = self.config
        used = proposal_scores if config.use_proposal_score else None
        limits = (config.score_threshold, config.nms_threshold, config.detections)
        return detections(stages, size, used, *limits, config.second_chance)


def detections(
    stages: Sequence[Stage],
    size: tuple[int, int],
    proposal_scores: Tensor | None,
    score_threshold: float,
    nms_threshold: float,
    limit: int,
    second_chance: bool = False,
) -> Detected:
    """The objects that the stages found: boxes of the last stage, scores averaged over all.

    Args:
        stages: at least one.
        size: (H, W) of the pictures.
        proposal_scores: (B, N), or None for scores of the stages alone.
        score_threshold: boxes up to it get the score -1, and only places that no other needs.
        nms_threshold: overlap from which the weaker of two boxes of a class falls.
        limit: places for objects.
        second_chance: see `RoiConfig`.
    """
    last = stages[-1]
    boxes = _decoded(last.deltas, last.anchors, BOX_WEIGHTS[len(stages) - 1], size)
    scores = sum((stage.logits.softmax(-1) for stage in stages), torch.zeros_like(last.logits)) / len(stages)
    if proposal_scores is not None:
        scores = (scores * proposal_scores[..., None]).sqrt()
    return select_detections(boxes, scores[..., 1:], score_threshold, nms_threshold, limit, second_chance)


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    score_threshold: float,
    nms_threshold: float,
    limit: int,
    second_chance: bool = False,
) -> Detected:
    """Suppression within each class, then the best of all classes.

    Args:
        boxes: (B, N, 4).
        scores: (B, N, classes), without the background's.
        score_threshold: see `detections`.
        nms_threshold: see `detections`.
        limit: see `detections`.
        second_chance: see `RoiConfig`.
    """
    scores = torch.where(scores > score_threshold, scores, -1.0)
    pairs = zip(boxes, scores, strict=True)
    pictures = [_select(box, score, nms_threshold, limit, second_chance) for box, score in pairs]
    return Detected(*(torch.stack(parts) for parts in zip(*pictures, strict=True)))


def _select(boxes: Tensor, scores: Tensor, threshold: float, limit: int, second_chance: bool) -> Detected:
    """One picture: (N, 4), (N, classes)."""
    found = []
    for number in range(scores.shape[1]):
        ranked, order = torch.sort(scores[:, number], descending=True, stable=True)
        kept = padded_nms(boxes[order], limit, threshold)
        left = boxes[order][kept.which] * kept.valid[:, None]
        found.append((left, ranked[kept.which] * kept.valid, torch.full_like(kept.which, number)))
        if second_chance:
            fell, remainders = _fallen(boxes[order], ranked, kept.which[kept.valid])
            found.append((fell, remainders, order.new_full((len(fell),), number)))
    all_boxes, all_scores, classes = (torch.cat(parts) for parts in zip(*found, strict=True))
    ranked, order = torch.sort(all_scores, descending=True, stable=True)
    return Detected(all_boxes[order][:limit], ranked[:limit], classes[order][:limit])


def _fallen(boxes: Tensor, scores: Tensor, stays: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) of falling score without those that stay, and what is left of their scores.

    The more a box overlaps a better one that stays the less is left (cf. Bodla et al., "Soft-NMS", ICCV 2017).
    """
    fell = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    fell[stays] = False
    place = fell.nonzero()[:, 0]
    overlap = pairwise_iou(boxes[place], boxes[stays]) * (stays < place[:, None])
    most = F.pad(overlap, (1, 0)).amax(1)  # 0 if none stays
    return boxes[place], torch.where(scores[place] > 0, scores[place] * (1 - most) ** 2, -1.0)


def _decoded(deltas: Tensor, anchors: Tensor, weights: BoxWeights, size: tuple[int, int]) -> Tensor:
    height, width = size
    return clip_boxes(decode_boxes(deltas, anchors, weights), width, height)
