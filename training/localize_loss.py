"""What UnLoc minimises: focal loss over all time steps and an IoU loss where a step belongs to a segment.

Source: Yan et al., "UnLoc: A Unified Framework for Video Localization Tasks" (ICCV 2023), as its reference computes
it. Focal loss: Lin et al. (ICCV 2017). The classification loss is divided by the number of steps, not of positives and
not of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "LocalizeLoss",
    "LocalizeLossOptions",
    "box_loss",
    "classification_loss",
    "detection_loss",
    "pair_loss",
    "retrieval_loss",
    "segmentation_loss",
]

_COUNT_EPS = 1e-8
_UNION_EPS = 1e-6


@dataclass(frozen=True)
class LocalizeLossOptions:
    """How the two losses are made and added; the defaults are those of all released configurations.

    Attributes:
        classification: "focal", or plain "sigmoid" cross entropy.
        classification_weight: of the classification loss beside the box loss.
        alpha: focal weight of positives; negatives have 1 - alpha.
        gamma: focal exponent.
        box: terms joined by "+", each with an optional weight before "*": iou, l1, center_offset_squared. For example
            "0.5*l1+iou".
        label_smoothing: part of a label that is spread over all classes.
        every_pair: in moment retrieval, each text counts as negative in all other videos of the batch.
    """

    classification: Literal["focal", "sigmoid"] = "focal"
    classification_weight: float = 10.0
    alpha: float = 0.25
    gamma: float = 2.0
    box: str = "iou"
    label_smoothing: float = 0.0
    every_pair: bool = True

    def __post_init__(self) -> None:
        """Check what is written."""
        if self.classification not in ("focal", "sigmoid"):
            raise ValueError(f"the classification loss is focal or sigmoid, not {self.classification!r}")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing {self.label_smoothing} must be at least 0 and below 1")
        _box_terms(self.box)


class LocalizeLoss(NamedTuple):
    """The loss and what it is made of; all are scalars."""

    total: Tensor
    """What to minimise."""
    classification: Tensor
    """Before its weight."""
    box: Tensor
    """0 in action segmentation."""


def classification_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, options: LocalizeLossOptions | None = None
) -> Tensor:
    """Focal loss or sigmoid cross entropy, summed over classes, averaged over steps by their weights.

    Args:
        logits: (..., C).
        labels: (..., C), 0 or 1.
        weights: (...), 0 for steps that do not count.
        options: None = the defaults.
    """
    options = options or LocalizeLossOptions()
    wanted = labels.to(logits.dtype) * (1.0 - options.label_smoothing) + options.label_smoothing / labels.shape[-1]
    loss = -(wanted * F.logsigmoid(logits) + (1.0 - wanted) * F.logsigmoid(-logits))
    if options.classification == "focal":
        balance = options.alpha * wanted + (1.0 - options.alpha) * (1.0 - wanted)
        loss = loss * (1.0 - torch.exp(-loss)) ** options.gamma * balance
    return (loss * weights[..., None]).sum() / (weights.sum() + _COUNT_EPS)


def box_loss(
    displacements: Tensor,
    targets: Tensor,
    labels: Tensor,
    weights: Tensor,
    options: LocalizeLossOptions | None = None,
) -> Tensor:
    """The box terms, averaged over the positive steps by their weights.

    Args:
        displacements: (..., C, 2), or (..., 1, 2) where the classes share them; >= 0.
        targets: of the same shape.
        labels: (..., C), 0 or 1.
        weights: (...).
        options: None = the defaults.
    """
    options = options or LocalizeLossOptions()
    loss = torch.zeros_like(displacements[..., 0])
    for weight, term in _box_terms(options.box):
        loss = loss + weight * term(displacements, targets)
    counted = labels * weights[..., None]
    return (loss * counted).sum() / (counted.sum() + _COUNT_EPS)


def detection_loss(
    logits: Tensor,
    displacements: Tensor,
    labels: Tensor,
    targets: Tensor,
    weights: Tensor,
    options: LocalizeLossOptions | None = None,
) -> LocalizeLoss:
    """The loss of temporal localization and highlight detection.

    Args:
        logits: (B, N, C).
        displacements: (B, N, C, 2), or (B, N, 2) where the classes share them, in strides of their level.
        labels: (B, N, C), 0 or 1.
        targets: like `displacements`.
        weights: (B, N), 0 for steps and videos that only fill up the batch.
        options: None = the defaults.
    """
    options = options or LocalizeLossOptions()
    if displacements.ndim == logits.ndim:
        displacements, targets = displacements.unsqueeze(-2), targets.unsqueeze(-2)
    return _sum(
        classification_loss(logits, labels, weights, options),
        box_loss(displacements, targets, labels, weights, options),
        options,
    )


def pair_loss(
    logits: Tensor,
    displacements: Tensor,
    labels: Tensor,
    targets: Tensor,
    weights: Tensor,
    options: LocalizeLossOptions | None = None,
) -> LocalizeLoss:
    """The loss of moment retrieval over any set of (video, text) pairs; a pair that does not match has labels 0.

    Args:
        logits: (P, N).
        displacements: (P, N, 2), in strides of their level.
        labels: (P, N), 0 or 1.
        targets: (P, N, 2).
        weights: (P, N).
        options: None = the defaults; `every_pair` has no effect.
    """
    return detection_loss(
        logits[..., None], displacements[..., None, :], labels[..., None], targets[..., None, :], weights, options
    )


def retrieval_loss(
    logits: Tensor,
    displacements: Tensor,
    labels: Tensor,
    targets: Tensor,
    frame_mask: Tensor,
    caption_mask: Tensor | None = None,
    batch_mask: Tensor | None = None,
    options: LocalizeLossOptions | None = None,
) -> LocalizeLoss:
    """The loss of moment retrieval over a batch of B videos, of which each was scored against all B*K texts.

    Args:
        logits: (B, B*K, N); text j*K + k is the k-th of video j.
        displacements: (B, B*K, N, 2), in strides of their level.
        labels: (B, K, N), 0 or 1, of each video's own texts.
        targets: (B, K, N, 2).
        frame_mask: (B, N). As in the reference, that of the video that a text belongs to, whatever it is scored on.
        caption_mask: (B, K), None = all there.
        batch_mask: (B,), None = all there.
        options: None = the defaults.
    """
    options = options or LocalizeLossOptions()
    videos, texts, steps = labels.shape
    present = logits.new_ones(videos) if batch_mask is None else batch_mask.to(logits.dtype)
    own = present[:, None, None] * frame_mask.to(logits.dtype)[:, None, :].expand(-1, texts, -1)
    if caption_mask is not None:
        own = own * caption_mask.to(logits.dtype)[..., None]
    diagonal = torch.arange(videos, device=logits.device)
    scores = logits.reshape(videos, videos, texts, steps)
    boxes = displacements.reshape(videos, videos, texts, steps, 2)[diagonal, diagonal]
    if options.every_pair:
        wanted = torch.zeros_like(scores)
        wanted[diagonal, diagonal] = labels.to(scores.dtype)
        weights = present[:, None, None, None] * own
    else:
        scores, wanted, weights = scores[diagonal, diagonal], labels, own
    return _sum(
        classification_loss(scores[..., None], wanted[..., None], weights, options),
        box_loss(boxes[..., None, :], targets[..., None, :], labels[..., None], own, options),
        options,
    )


def segmentation_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, options: LocalizeLossOptions | None = None
) -> LocalizeLoss:
    """The loss of action segmentation, sigmoid cross entropy whatever the options say; only their smoothing counts.

    Args:
        logits: (B, T, C).
        labels: (B, T, C), 0 or 1.
        weights: (B, T).
        options: None = no smoothing.
    """
    smoothing = options.label_smoothing if options else 0.0
    plain = LocalizeLossOptions(classification="sigmoid", classification_weight=1.0, label_smoothing=smoothing)
    loss = classification_loss(logits, labels, weights, plain)
    return LocalizeLoss(loss, loss, torch.zeros_like(loss))


def _sum(classification: Tensor, box: Tensor, options: LocalizeLossOptions) -> LocalizeLoss:
    return LocalizeLoss(options.classification_weight * classification + box, classification, box)


def _union(predicted: Tensor, true: Tensor) -> Tensor:
    return torch.maximum(predicted, true).sum(dim=-1) + _UNION_EPS


def temporal_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """IoU of segments given by displacements (..., 2) from the same step: (...)."""
    return torch.minimum(predicted, true).sum(dim=-1) / _union(predicted, true)


def normalized_l1(predicted: Tensor, true: Tensor) -> Tensor:
    """Distance of both ends, as a part of the union: (...)."""
    return (predicted - true).abs().sum(dim=-1) / _union(predicted, true)


def center_offset_squared(predicted: Tensor, true: Tensor) -> Tensor:
    """Squared distance of the centres, as a part of the union: (...)."""
    difference = predicted - true
    return (0.5 * (difference[..., 1] - difference[..., 0]) / _union(predicted, true)) ** 2


def _iou_loss(predicted: Tensor, true: Tensor) -> Tensor:
    return 1.0 - temporal_iou(predicted, true)


_BoxTerm = Callable[[Tensor, Tensor], Tensor]
_BOX_TERMS: dict[str, _BoxTerm] = {
    "iou": _iou_loss,
    "l1": normalized_l1,
    "center_offset_squared": center_offset_squared,
}


def _box_terms(text: str) -> list[tuple[float, _BoxTerm]]:
    """What a sum of box terms says, as weights and functions."""
    terms = []
    for term in text.split("+"):
        weight, _, name = term.rpartition("*")
        if name not in _BOX_TERMS:
            raise ValueError(f"box loss {text!r}: {name!r} is none of {', '.join(_BOX_TERMS)}")
        try:
            terms.append((float(weight or 1.0), _BOX_TERMS[name]))
        except ValueError:
            raise ValueError(f"box loss {text!r}: {weight!r} is not a weight") from None
    return terms
