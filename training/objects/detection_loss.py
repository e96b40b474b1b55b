"""Losses of the detector of Dense VOC: heatmaps and boxes of proposals, classes and boxes of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.boxes import BoxWeights, areas, encode_boxes
from onlooker.operators.objects.densevoc.centernet import ProposalMaps
from onlooker.operators.objects.densevoc.detector import Detector, Size
from onlooker.operators.objects.densevoc.roi_heads import BOX_WEIGHTS, Detected, Stage, detections

from .targets import (
    CellTargets,
    Matched,
    Range,
    cell_targets,
    level_ranges,
    match_regions,
    object_classes,
    sample_regions,
)

_EPS = 1e-6
_VALID_EPS = 1e-4
_TRAINING_DETECTIONS = 100
_TRAINING_SCORE = 0.05


@dataclass(frozen=True)
class DetectionLossOptions:
    """Weights of the parts, and how targets are made; the defaults are those of the pretraining.

    Attributes:
        ranges: half diagonals in pixels of the objects of each level; None for 2 to 5 strides of it.
        heatmap_weight: of the heatmaps' part.
        reach_weight: of the part for the proposals' boxes.
        focal_alpha: weight of cells with an object; the others have 1 - this.
        focal_beta: how far cells near a centre are spared.
        focal_gamma: how far cells that are right already are spared.
        focal_clip: probabilities keep this distance from 0 and 1.
        regions: drawn from each picture for the second stage.
        positive_fraction: at most this part of them are objects.
    """

    ranges: tuple[Range, ...] | None = None
    heatmap_weight: float = 0.5
    reach_weight: float = 1.0
    focal_alpha: float = 0.25
    focal_beta: float = 4.0
    focal_gamma: float = 2.0
    focal_clip: float = 1e-4
    regions: int = 128
    positive_fraction: float = 0.25


class ProposalLoss(NamedTuple):
    """Losses of the first stage, not weighted, and what they were divided by.

    Attributes:
        positive: of cells that are centres.
        negative: of all others.
        reach: of boxes.
        centers: mean number of centres of a picture, each counted as at least 1.
        cells: mean number of cells with a box, each counted as at least 1.
    """

    positive: Tensor
    negative: Tensor
    reach: Tensor
    centers: Tensor
    cells: Tensor


class RegionLoss(NamedTuple):
    """Losses of one stage of box heads: of classes, and of boxes."""

    classes: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class DetectionLoss:
    """All losses of a step, and what other losses may need.

    Attributes:
        total: to be minimised.
        proposals: of the first stage.
        regions: of each box head.
        sampled: the regions of the second stage, objects first.
        stages: what the box heads said of them.
    """

    total: Tensor
    proposals: ProposalLoss
    regions: tuple[RegionLoss, ...]
    sampled: Matched
    stages: tuple[Stage, ...]


def detection_loss(
    detector: Detector,
    levels: Sequence[Tensor],
    size: Size,
    truth: Tensor,
    *,
    classes: Tensor | None = None,
    beliefs: Tensor | None = None,
    options: DetectionLossOptions | None = None,
    generator: torch.Generator | None = None,
) -> DetectionLoss:
    """One step's losses.

    Where boxes are of a teacher that is not sure, each counts as an object with the probability that `beliefs` tells
    and as background with the rest of it.

    Args:
        detector: what is trained.
        levels: its pyramid of B pictures.
        size: (H, W) of the pictures.
        truth: (B, G, 4), true boxes in pixels, filled up with zeros; G at least 1.
        classes: (B, G) int64 from 0; None if there is only one.
        beliefs: (B, G), from 0 to 1; None if all boxes are certain.
        options: weights and targets.
        generator: of the draw of regions.
    """
    options = options or DetectionLossOptions()
    maps: ProposalMaps = detector.proposal_generator(levels)
    strides = detector.config.strides
    wanted = cell_targets(truth, maps.shapes(), strides, options.ranges or level_ranges(strides))
    first = proposal_loss(*maps.flat(), wanted, options, beliefs)
    thresholds = detector.config.roi.match_thresholds
    numbered = object_classes(truth, classes)
    with torch.no_grad():
        proposals = detector.proposals(maps, size, training=True)
        sampled = sample_regions(
            proposals.boxes,
            truth,
            numbered,
            threshold=thresholds[0],
            count=options.regions,
            positive_fraction=options.positive_fraction,
            generator=generator,
        )
    stages = detector.roi_heads(partial(detector.pool, levels), sampled.regions, size)
    second = []
    for number, (stage, threshold) in enumerate(zip(stages, thresholds, strict=True)):
        matched = sampled if number == 0 else match_regions(stage.anchors, truth, numbered, threshold)
        second.append(region_loss(stage, matched, BOX_WEIGHTS[number], beliefs))
    total = options.heatmap_weight * (first.positive + first.negative) + options.reach_weight * first.reach
    total = total + torch.stack([part.classes + part.boxes for part in second]).mean()
    return DetectionLoss(total, first, tuple(second), sampled, tuple(stages))


def training_detections(detector: Detector, stages: Sequence[Stage], size: Size) -> Detected:
    """The objects among sampled regions, for the caption and association losses of fine-tuning.

    They are not those of the test: scores leave the proposals out, and threshold and number are fixed.
    """
    nms_threshold = detector.config.roi.nms_threshold
    with torch.no_grad():
        return detections(stages, size, None, _TRAINING_SCORE, nms_threshold, _TRAINING_DETECTIONS)


def proposal_loss(
    heatmap: Tensor, reach: Tensor, wanted: CellTargets, options: DetectionLossOptions, beliefs: Tensor | None = None
) -> ProposalLoss:
    """Focal loss (Lin et al., ICCV 2017, as "Objects as points" has it) and boxes.

    Args:
        heatmap: (B, m), logits.
        reach: (B, m, 4), in strides.
        wanted: of the same cells.
        options: weights.
        beliefs: (B, G), see `detection_loss`.
    """
    at_peak, at_owner = _believed(beliefs, wanted.peak), _believed(beliefs, wanted.owner)
    chance = heatmap.sigmoid().clamp(options.focal_clip, 1 - options.focal_clip)
    center = (wanted.heatmap == 1) * at_peak
    centers = center.sum(1).clamp(min=1).mean()
    hit = -chance.log() * (1 - chance) ** options.focal_gamma * center
    background = 1 - at_peak * (1 - (1 - wanted.heatmap) ** options.focal_beta)
    miss = -(1 - chance).log() * chance**options.focal_gamma * background
    owned = wanted.reach.amax(-1) >= 0
    cells = (owned * at_owner).sum(1).clamp(min=1).mean()
    off = (giou_loss(reach[owned], wanted.reach[owned]) * at_owner[owned]).sum() / len(reach)
    return ProposalLoss(
        options.focal_alpha * hit.sum(1).mean() / centers,
        (1 - options.focal_alpha) * miss.sum(1).mean() / centers,
        off / cells,
        centers,
        cells,
    )


def region_loss(stage: Stage, matched: Matched, weights: BoxWeights, beliefs: Tensor | None = None) -> RegionLoss:
    """Cross-entropy over regions with an area, and L1 of the coded boxes of those with an object.

    Boxes count per region, not per region with an object.

    Args:
        stage: of N regions of each picture.
        matched: what they should say.
        weights: how finely boxes are coded.
        beliefs: (B, G), see `detection_loss`.
    """
    valid = areas(stage.anchors) > 0
    surprise = -stage.logits.log_softmax(-1)
    entropy = surprise.gather(-1, matched.classes[..., None])[..., 0]
    wanted = region_targets(stage.anchors, matched.boxes, weights)
    off = (stage.deltas - wanted).abs() * (valid & (matched.classes > 0))[..., None]
    belief = _believed(beliefs, matched.which)
    entropy = belief * entropy + (1 - belief) * surprise[..., 0]  # the same for what is background anyway
    classes = (entropy * valid).sum() / (valid.sum() + _VALID_EPS)
    return RegionLoss(classes, (off * belief[..., None]).sum() / valid.numel())


def _believed(beliefs: Tensor | None, which: Tensor) -> Tensor:
    """The belief in each of the numbered true boxes (B, N), 1 without `beliefs`."""
    return torch.ones(which.shape, device=which.device) if beliefs is None else beliefs.gather(1, which)


def region_targets(anchors: Tensor, boxes: Tensor, weights: BoxWeights) -> Tensor:
    """Coded boxes (..., 4), with 0 where there is no code."""
    coded = encode_boxes(boxes, anchors, weights)
    return torch.where(coded.isfinite(), coded, 0.0)


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al., CVPR 2019) of boxes told by distances from one point.

    Args:
        boxes: (..., 4), how far left, up, right and down they reach.
        targets: (..., 4).

    Returns:
        (...), 0 to 2.
    """
    common = _area(torch.minimum(boxes, targets), least=0.0)
    hull = _area(torch.maximum(boxes, targets), least=0.0)
    union = _area(boxes) + _area(targets) - common
    return 1 - common / (union + _EPS) + (hull - union) / (hull + _EPS)


def _area(reach: Tensor, least: float | None = None) -> Tensor:
    """(..., 4) -> (...); sides are at least `least`."""
    sides = reach[..., :2] + reach[..., 2:]
    return (sides if least is None else sides.clamp(min=least)).prod(-1)
