"""What the caption of a track is told from: features of a few of its detections, or a mean of all alike.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), section 3.3, as its reference
computes it. Everywhere T frames of N detections make M = T * N detections, one frame after the other, and a feature
is S = r * r vectors of width C.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "TrackTokens",
    "detection_tokens",
    "same_track",
    "sampled_members",
    "soft_features",
    "soft_weights",
    "track_members",
    "track_tokens",
    "windowed",
]

_EPS = 1e-6


def windowed(scores: Tensor, frames: int, window: int) -> Tensor:
    """Scores (M, M) without pairs more than `window` frames apart, or of the same frame; below 0 all stay as they are.

    A detection keeps its score of itself.
    """
    if window < 0:
        return scores
    count = len(scores)
    frame = torch.arange(count, device=scores.device) // max(1, count // frames)
    apart = (frame[:, None] - frame).abs()
    kept = (apart <= window) & ((apart > 0) | torch.eye(count, dtype=torch.bool, device=scores.device))
    return scores * kept


def same_track(identities: Tensor) -> Tensor:
    """Scores (M, M), 1 where identities (M,) are equal: those without one, the 0, are a group like any other."""
    return (identities[:, None] == identities).float()


def soft_weights(scores: Tensor) -> Tensor:
    """Scores (M, M) with rows that sum to one, or to zero."""
    return scores / (scores.sum(1, keepdim=True) + _EPS)


def soft_features(features: Tensor, weights: Tensor) -> Tensor:
    """Every detection's weighted mean of all features: (T, N, S, C), with the weights (M, M) of its row."""
    return (weights @ features.flatten(0, 1).flatten(1)).view_as(features)


@dataclass(frozen=True)
class TrackTokens:
    """What a decoder reads of some tracks or detections.

    Attributes:
        tokens: (..., H * S, C), H features one after the other.
        mask: (..., H * S) bool, True where there is a token.
    """

    tokens: Tensor
    mask: Tensor


def track_members(identities: Tensor, tracks: int) -> Tensor:
    """Bool (tracks, M): which detections, of identities (M,), belong to the tracks 1, 2, ..."""
    return torch.arange(1, tracks + 1, device=identities.device)[:, None] == identities


def sampled_members(members: Tensor, frames: int) -> Tensor:
    """Up to `frames` members of each track, spread evenly over its life; the first is one of them, the last is not.

    Args:
        members: (K, M) bool.
        frames: H; tracks with no more members give all.

    Returns:
        (K, H) int64 indices in increasing order; -1 fills up.
    """
    count = members.sum(1, keepdim=True)  # K, 1
    slot = torch.arange(frames, device=members.device)
    wanted = torch.where(count > frames, slot * count // frames, slot)  # K, H
    # A stable sort puts the members first, in their order.
    order = members.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    if order.shape[1] < frames:
        order = F.pad(order, (0, frames - order.shape[1]))
    return order.gather(1, wanted).masked_fill(wanted >= count, -1)


def track_tokens(features: Tensor, identities: Tensor, tracks: int, frames: int) -> TrackTokens:
    """The tokens of the tracks 1 ... `tracks`, from `frames` detections of each.

    Args:
        features: (T, N, S, C); a token of zeros counts as none.
        identities: (T, N) int.
        tracks: K.
        frames: H.

    Returns:
        Tokens (K, H * S, C); nothing at all of a track without members.
    """
    flat = features.flatten(0, 1)  # M, S, C
    index = sampled_members(track_members(identities.flatten(), tracks), frames)
    if not len(flat):
        tokens = flat.new_zeros(tracks, frames, *flat.shape[1:])
    else:
        tokens = flat[index.clamp(min=0)] * (index >= 0)[..., None, None]
    tokens = tokens.flatten(1, 2)
    return TrackTokens(tokens, tokens.square().amax(-1) > 0)


def detection_tokens(features: Tensor, identities: Tensor, of_tracks: TrackTokens) -> TrackTokens:
    """The tokens of each detection's track; its own S alone, all of them valid, where it has none.

    As in the reference, identities above the number of tracks read the last track.

    Args:
        features: (T, N, S, C).
        identities: (T, N) int.
        of_tracks: see `track_tokens`.

    Returns:
        Tokens (T, N, H * S, C).
    """
    (tracks, length), size = of_tracks.mask.shape, features.shape[-2]
    index = (identities.clamp(max=tracks) - 1).clamp(min=0)
    alone = identities <= 0
    own = features.repeat(1, 1, length // size, 1)
    own_mask = torch.arange(length, device=features.device) < size
    return TrackTokens(
        torch.where(alone[..., None, None], own, of_tracks.tokens[index]),
        torch.where(alone[..., None], own_mask, of_tracks.mask[index]),
    )
