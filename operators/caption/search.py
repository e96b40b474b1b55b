"""Greedy and beam search over a step function, exactly as the reference decodes (Zhou et al., CVPR 2024).

The searches know nothing of models: a `StepFunction` takes the last token of every row and gives the logits of the
next one. What ties, brevity penalty and unfinished texts do is part of the contract, because other implementations
have to give the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_NEVER = -1.0e7
_FORBIDDEN_LOGIT = -10000.0


class StepFunction(Protocol):
    """What a search needs of a model; rows are batch items (greedy) or batch items times beams."""

    def step(self, tokens: Tensor, position: int) -> Tensor:
        """Logits (rows, V) of position + 1 after `tokens` (rows,) int64 were written at `position`."""

    def reorder(self, rows: Tensor) -> None:
        """From now on row i continues the text of row `rows[i]` (rows,) int64."""


@dataclass(frozen=True)
class BeamResult:
    """All finished texts of a beam search.

    Attributes:
        sequences: (B, beam, L) int64, scores increasing; an item without any finished text holds its live texts.
        scores: (B, beam) float32, log-probability over brevity penalty (raw log-probability for live texts).
    """

    sequences: Tensor
    scores: Tensor

    @property
    def best(self) -> Tensor:
        """(B, L) the text with the highest score."""
        return self.sequences[:, -1]


def greedy_search(model: StepFunction, begin: Tensor, end_token: int) -> tuple[Tensor, Tensor]:
    """Take the likeliest token each time, never the same one twice in a row.

    Args:
        model: step function over B rows.
        begin: (B, L) int64; column 0 starts the texts, the others fill positions never reached.
        end_token: after it, only it follows.

    Returns:
        (B, L) tokens and (B,) log-probability of the text including its end token, divided by its number of tokens
        without the end token (as the reference counts).
    """
    tokens = begin.clone()
    batch, length = begin.shape
    ended = torch.zeros(batch, dtype=torch.bool, device=begin.device)
    total = torch.zeros(batch, device=begin.device)
    count = torch.zeros_like(total)
    for position in range(length - 2):
        last = tokens[:, position]
        logits = model.step(last, position).float()
        own = logits.gather(1, last[:, None]).clamp(max=_FORBIDDEN_LOGIT)
        logits = logits.scatter(1, last[:, None], own)
        logprob, chosen = F.log_softmax(logits, -1).max(-1)
        chosen = torch.where(ended, torch.full_like(chosen, end_token), chosen)
        tokens[:, position + 1] = chosen
        total = total + torch.where(ended, torch.zeros_like(logprob), logprob)
        ended = ended | (chosen == end_token)
        count = count + (~ended).float()
        if bool(ended.all()):
            tokens[:, position + 2 :] = end_token
            break
    return tokens, total / count.clamp(min=1.0)


def brevity_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha: divides log-probabilities so that long texts are not at a disadvantage."""
    return float(((5.0 + length) / 6.0) ** alpha)


def beam_search(
    model: StepFunction, begin: Tensor, end_token: int, beam: int, alpha: float = 0.6, per_beam: int = 2
) -> BeamResult:
    """Beam search with a brevity penalty; the last position of `begin` is never written.

    Args:
        model: step function over B * beam rows, the beams of one item next to each other.
        begin: (B, L) int64; column 0 starts the texts, the others fill positions never reached.
        end_token: ends a text.
        beam: live and finished texts kept per item.
        alpha: exponent of the brevity penalty, 0 = none.
        per_beam: candidates looked at are `per_beam * beam`. With 1, texts that end take the places of live ones,
            which then go on as hopeless ones.
    """
    batch, length = begin.shape
    live = begin[:, None].repeat(1, beam, 1)  # B, beam, L
    live_scores = torch.full((batch, beam), _NEVER, device=begin.device)
    live_scores[:, 0] = 0.0
    finished = torch.zeros_like(live)
    scores = torch.full_like(live_scores, _NEVER)
    done = torch.zeros_like(scores, dtype=torch.bool)
    first_row = torch.arange(batch, device=begin.device)[:, None] * beam  # B, 1
    bound = brevity_penalty(length, alpha)
    for cur in range(1, length - 1):
        # The best live score stands in the last slot, since slots increase; before the first step that slot is "never".
        worst = torch.where(done, scores, torch.full_like(scores, _NEVER)).min(1).values
        if bool((worst > live_scores[:, -1] / bound).all()):
            break
        logits = model.step(live[:, :, cur - 1].reshape(-1), cur - 1).float()
        logprobs = F.log_softmax(logits, -1).view(batch, beam, -1) + live_scores[:, :, None]
        vocab = logprobs.shape[-1]
        top, flat = top_lowest_index(logprobs.flatten(1), min(per_beam * beam, beam * vocab))
        parent, token = flat // vocab, flat % vocab  # B, per_beam * beam
        grown = live.gather(1, parent[:, :, None].expand(-1, -1, length))
        grown[:, :, cur] = token
        ends = token == end_token

        # Added, not put in place: among hopeless texts the sums decide, rounded as the reference rounds them.
        open_scores = top + ends * _NEVER
        keep = _top_increasing(open_scores, beam)
        live_scores = open_scores.gather(1, keep)
        live = grown.gather(1, keep[:, :, None].expand(-1, -1, length))
        model.reorder((first_row + parent.gather(1, keep)).reshape(-1))

        ended = top / brevity_penalty(cur, alpha) + ~ends * _NEVER
        pool_scores = torch.cat([scores, ended], 1)
        best = _top_increasing(pool_scores, beam)
        scores = pool_scores.gather(1, best)
        finished = torch.cat([finished, grown], 1).gather(1, best[:, :, None].expand(-1, -1, length))
        done = torch.cat([done, ends], 1).gather(1, best)
    any_done = done.any(1)
    return BeamResult(
        torch.where(any_done[:, None, None], finished, live), torch.where(any_done[:, None], scores, live_scores)
    )


def top_lowest_index(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row (B, n), decreasing, equal values by increasing index; values and indices (B, k)."""
    top, index = values.topk(k)
    if int((values >= top[:, -1:]).sum()) > values.shape[0] * k:
        # More equal values at the border than fit: only a stable sort says which of them come first.
        ordered, index = values.sort(dim=1, descending=True, stable=True)
        return ordered[:, :k], index[:, :k]
    index = index.sort(1).values
    ordered, order = values.gather(1, index).sort(dim=1, descending=True, stable=True)
    return ordered, index.gather(1, order)


def _top_increasing(values: Tensor, k: int) -> Tensor:
    """Indices (B, k) of the k largest of each row, in the reverse of their order in `top_lowest_index`."""
    return values.sort(dim=1, descending=True, stable=True).indices[:, :k].flip(1)
