"""The loss of dense and paragraph captioning: label smoothing, and times weighed apart from words.

Source: Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024), as its reference computes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

_EPS = 1e-8


@dataclass(frozen=True)
class CaptionLossOptions:
    """How tokens are weighed; the defaults are the released dense configuration.

    Attributes:
        label_smoothing: probability that the target leaves to all other tokens together.
        time_weight: weight of the mean loss of time tokens beside that of words; None = one mean over all tokens.
        ignore_empty: rows whose text is empty do not count.
        point_weights: weight of each decoding point of a video; empty = all 1.
    """

    label_smoothing: float = 0.1
    time_weight: float | None = 0.5
    ignore_empty: bool = True
    point_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing {self.label_smoothing} must be at least 0 and below 1")
        if self.time_weight is not None and self.time_weight < 0.0:
            raise ValueError(f"time_weight {self.time_weight} must not be negative; None counts all tokens alike")


class CaptionLoss(NamedTuple):
    """The loss and what it is made of; all are scalars."""

    total: Tensor
    """What to minimise."""
    caption: Tensor
    """Mean over words, the end token being one."""
    time: Tensor
    """Mean over time tokens; 0 if there are none."""
    caption_tokens: Tensor
    """Words per row."""
    time_tokens: Tensor
    """Time tokens per row."""


def caption_loss(
    logits: Tensor, targets: Tensor, num_bins: int, end_token: int, options: CaptionLossOptions | None = None
) -> CaptionLoss:
    """Cross entropy of the next token.

    Args:
        logits: (rows, L, V) float, for the token after each target token.
        targets: (rows, L) int64 `begin, tokens, end`, padded with 0; the rows of a video follow each other.
        num_bins: Q, the time tokens at the end of the vocabulary; 0 if there are none.
        end_token: a row that goes from its begin to this token is empty.
        options: None for the released dense configuration.

    Raises:
        ValueError: `point_weights` do not divide the rows into videos.
    """
    options = options or CaptionLossOptions()
    wanted = targets[:, 1:]
    valid = wanted > 0
    if options.ignore_empty:
        valid = valid & (wanted[:, :1] != end_token)
    losses = smoothed_cross_entropy(logits[:, :-1].float(), wanted, options.label_smoothing)  # rows, L - 1
    if options.point_weights:
        if len(targets) % len(options.point_weights):
            raise ValueError(f"{len(options.point_weights)} point_weights do not divide {len(targets)} rows")
        weights = losses.new_tensor(options.point_weights).repeat(len(targets) // len(options.point_weights))
        losses = losses * weights[:, None]
    is_time = wanted >= logits.shape[-1] - num_bins
    words, times = (valid & ~is_time).to(losses.dtype), (valid & is_time).to(losses.dtype)
    caption, time = _mean(losses, words), _mean(losses, times)
    weight = options.time_weight
    total = _mean(losses, words + times) if weight is None else caption + weight * time
    return CaptionLoss(total, caption, time, words.sum() / len(words), times.sum() / len(times))


def smoothed_cross_entropy(logits: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
    """Cross entropy (rows, L) with 1 - smoothing on the target and the rest spread over all other tokens."""
    logprobs = F.log_softmax(logits, -1)
    own = logprobs.gather(-1, wanted[..., None]).squeeze(-1)
    other = smoothing / (logits.shape[-1] - 1)
    return -(1.0 - smoothing - other) * own - other * logprobs.sum(-1)


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    return (losses * weights).sum() / (weights.sum() + _EPS)
