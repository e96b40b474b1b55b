"""The losses of PixelLLM (Xu et al. 2024), as its reference computes them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from onlooker.operators.objects.pixelllm.eva import resize_map
from onlooker.training.dvc_loss import CaptionLossOptions, caption_loss

PointLossKind = Literal["l1", "l2", "l1_nonzero"]


def text_loss(
    logits: Tensor, tokens: Tensor, end_token: int, valid: Tensor | None = None, label_smoothing: float = 0.1
) -> Tensor:
    """Mean cross entropy of the next token.

    Args:
        logits: (B, N, L, V) for the token after each one.
        tokens: (B, N, L) `begin, words, end`, padded with 0; empty texts do not count.
        end_token: its id.
        valid: (B, N), texts that count; None = all.
        label_smoothing: probability that the target leaves to all other tokens together.
    """
    if valid is not None:
        tokens = tokens * (valid > 0)[..., None]
    options = CaptionLossOptions(label_smoothing=label_smoothing, time_weight=None)
    return caption_loss(logits.flatten(0, 1), tokens.flatten(0, 1), 0, end_token, options).total


def point_loss(
    found: Tensor,
    targets: Tensor,
    found_valid: Tensor,
    target_valid: Tensor,
    kind: PointLossKind = "l1_nonzero",
) -> Tensor:
    """Mean distance of words' points from their targets, in the unit of both: pixels in the reference.

    Args:
        found: (B, N, L, n, 2).
        targets: (B, N, L, n, 2), or (B, N, n, 2) for all words of a text.
        found_valid: (B, N, L), words whose points count.
        target_valid: (B, N, L) or (B, N), which have a target.
        kind: `l1_nonzero` leaves out targets that are all 0.

    Raises:
        ValueError: an unknown kind.
    """
    if targets.ndim == 4:
        targets = targets[:, :, None].expand_as(found)
    if target_valid.ndim == 2:
        target_valid = target_valid[:, :, None].expand_as(found_valid)
    weights = (found_valid > 0).to(found.dtype) * (target_valid > 0)
    if kind == "l1_nonzero":
        weights = weights * (targets.square().sum((-2, -1)) > 0)
    elif kind not in ("l1", "l2"):
        raise ValueError(f"unknown kind of point loss {kind!r}; known: l1, l2, l1_nonzero")
    distances = found - targets
    losses = (distances.square() if kind == "l2" else distances.abs()).mean((-2, -1))  # B, N, L
    return (losses * weights).sum() / weights.sum().clamp(min=1.0)


class MaskLoss(NamedTuple):
    """What to minimise, and what it is made of; all are scalars."""

    total: Tensor
    focal: Tensor
    """Weighted, of the best mask of every prompt."""
    dice: Tensor
    """The same."""
    quality: Tensor
    """Squared error of the expected IoUs of all masks."""


def mask_loss(
    masks: Tensor,
    qualities: Tensor,
    targets: Tensor,
    valid: Tensor,
    seen: Tensor,
    *,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
) -> MaskLoss:
    """Segment Anything's loss: of several masks of a prompt only the best one learns, all learn how good they are.

    Args:
        masks: (B, N, m, h, w) logits.
        qualities: (B, N, m) expected IoUs.
        targets: (B, N, H, W), positive inside.
        valid: (B, N), prompts that count.
        seen: (B, H, W), 0 where the picture is only padded. Dice and IoU look at padding too, as in the reference.
        focal_weight: of the focal loss.
        dice_weight: of the dice loss.
    """
    batch, prompts, several = masks.shape[:3]
    size = (targets.shape[-2], targets.shape[-1])
    logits = resize_map(masks.flatten(0, 2)[..., None], size, "bilinear")[..., 0].view(batch, prompts, several, *size)
    truth = (targets > 0).to(logits.dtype)[:, :, None].expand_as(logits)
    counted = (valid > 0).to(logits.dtype)
    area = (seen[:, None] * counted[..., None, None])[:, :, None]  # B, N, 1, H, W
    focal = (_focal(logits, truth) * area).sum((-2, -1)) / area.sum((-2, -1)).clamp(min=1.0)  # B, N, m
    inside = logits.sigmoid()
    dice = 1.0 - (2.0 * (inside * truth).sum((-2, -1)) + 1.0) / ((inside + truth).sum((-2, -1)) + 1.0)
    dice = dice * (area.amax((-2, -1)) > 0)
    focal, dice = focal * focal_weight, dice * dice_weight
    best = (focal + dice).argmin(-1, keepdim=True)
    count = counted.sum().clamp(min=1.0)
    focal = (focal.gather(-1, best)[..., 0] * counted).sum() / count
    dice = (dice.gather(-1, best)[..., 0] * counted).sum() / count
    errors = (_ious(logits > 0, truth > 0) - qualities).square() * counted[..., None]
    quality = errors.sum() / (counted.sum() * several).clamp(min=1.0)
    return MaskLoss(focal + dice + quality, focal, dice, quality)


def _focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Focal loss of each pixel with gamma 2 and both classes weighed by half."""
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return 0.5 * losses * (1.0 - torch.exp(-losses)).square()


def _ious(found: Tensor, truth: Tensor) -> Tensor:
    """(..., H, W) bool each -> (...)."""
    return (found & truth).sum((-2, -1)) / (found | truth).sum((-2, -1)).clamp(min=1)
