"""The loss of captions of objects and tracks, and the text that a track is taught.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), section 3.4, as its reference
computes it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.aggregation import sampled_members
from onlooker.training.dvc_loss import smoothed_cross_entropy

__all__ = ["ObjectCaptionLoss", "object_caption_loss", "track_texts"]

_EPS = 1e-8


class ObjectCaptionLoss(NamedTuple):
    """The loss and what it is a mean of; both are scalars."""

    total: Tensor
    """What to minimise."""
    tokens: Tensor
    """Tokens that count, per matched row."""


def object_caption_loss(
    logits: Tensor, targets: Tensor, matched: Tensor, end_token: int, label_smoothing: float = 0.1
) -> ObjectCaptionLoss:
    """Mean cross entropy of the next token, over all tokens of all rows that count.

    The same for features of one frame, of a track, and of whole pictures of a video.

    Args:
        logits: (..., L, V) float, for the token after each target token.
        targets: (..., L) int64 `begin, tokens, end`, padded with 0.
        matched: (...), 0 for rows that do not count: an object that is none, a track without members. Rows whose text
            is empty never count.
        end_token: ends a text.
        label_smoothing: probability that the target leaves to all other tokens together.
    """
    wanted = targets[..., 1:]
    rows = matched > 0
    told = (wanted > 0) & (wanted[..., :1] != end_token) & rows[..., None]
    losses = smoothed_cross_entropy(logits[..., :-1, :].float(), wanted, label_smoothing)
    # Put in place, not multiplied: what a row without features gives may be anything.
    total = torch.where(told, losses, 0.0).sum() / (told.sum() + _EPS)
    return ObjectCaptionLoss(total, told.sum() / (rows.sum() + _EPS))


def track_texts(texts: Tensor, members: Tensor, frames: int) -> Tensor:
    """The text of each track: the most frequent one among the detections that it is told from.

    Args:
        texts: (M, L) int64, of every detection.
        members: (K, M) bool, see `aggregation.track_members`.
        frames: H, how many detections a track is told from.

    Returns:
        (K, L), of several as frequent the first; zeros for a track without members.
    """
    index = sampled_members(members, frames)  # K, H
    there = index >= 0
    sampled = texts[index.clamp(min=0)] * there[..., None]  # K, H, L
    votes = (sampled[:, :, None] == sampled[:, None]).all(-1).sum(-1) * there  # K, H
    # Equal ones are told by a stable sort; which of them argmax gives is not defined.
    first = votes.sort(dim=1, descending=True, stable=True).indices[:, 0]
    return sampled[torch.arange(len(sampled), device=texts.device), first]
