"""The loss of the association transformer, and the identities it is taught.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), section 3.2, as its reference
computes it: cross entropy over all ordered pairs of detections that show known objects.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from onlooker.operators.objects.densevoc.boxes import best_match

__all__ = ["association_loss", "match_identities"]

_EPS = 1e-6


def match_identities(boxes: Tensor, true_boxes: Tensor, true_identities: Tensor, iou: float = 0.6) -> Tensor:
    """The identity of the true box that each box overlaps most.

    Args:
        boxes: (..., N, 4) x0, y0, x1, y1 in pixels.
        true_boxes: (..., G, 4); rows of zeros fill up.
        true_identities: (..., G) int, 0 for rows that fill up.
        iou: least overlap.

    Returns:
        (..., N) int, 0 where no true box overlaps enough. Ties go to the first true box.
    """
    if not true_boxes.shape[-2]:
        return true_identities.new_zeros(boxes.shape[:-1])
    match = best_match(true_boxes, boxes)
    return true_identities.gather(-1, match.which) * (match.iou >= iou)


def association_loss(logits: Tensor, identities: Tensor) -> Tensor:
    """Mean cross entropy of "the same object" over pairs, those of a frame and of a detection with itself included.

    Args:
        logits: (..., M, M) of `Association.relate`.
        identities: (..., M) int; pairs with a 0 do not count.

    Returns:
        The mean over all pairs that count, of all leading axes together; 0 without any.
    """
    known = identities > 0
    counted = (known[..., :, None] & known[..., None, :]).to(logits.dtype)
    same = (identities[..., :, None] == identities[..., None, :]).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, same, reduction="none")
    return (losses * counted).sum() / (counted.sum() + _EPS)
