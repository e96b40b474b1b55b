"""Which detection a sentence is about: the one whose features make the sentence likeliest.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), section 3.5, as its reference
computes it. Features are those of single detections, not of tracks.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from onlooker.operators.caption.git import PAD_TOKEN, GitDecoder

__all__ = ["Likelihood", "sentence_likelihood"]

Likelihood = Literal["sumlogprob", "sumprob"]
_EPS = 1e-8


@torch.no_grad()
def sentence_likelihood(
    decoder: GitDecoder, features: Tensor, scores: Tensor, sentences: Tensor, method: Likelihood = "sumlogprob"
) -> Tensor:
    """How well a sentence describes each detection, by the score of the detection.

    Args:
        decoder: in eval mode.
        features: (T, N, S, C).
        scores: (T, N) of the detections.
        sentences: (T, L) int64 `begin, words, end`, padded with 0, one for all detections of a frame; or (L,) for all.
        method: geometric ("sumlogprob") or arithmetic ("sumprob") mean of the probabilities of the tokens.

    Returns:
        (T, N), the square root of mean probability times score, 0 where the score is negative.

    Raises:
        ValueError: another method.
    """
    if method not in ("sumlogprob", "sumprob"):
        raise ValueError(f"the likelihood is sumlogprob or sumprob, not {method!r}")
    tokens = sentences.expand(len(features), sentences.shape[-1])  # T, L
    tokens = tokens[:, None].expand(-1, features.shape[1], -1).flatten(0, 1)  # T * N, L
    logits = decoder(tokens, features.flatten(0, 1))[:, :-1].float()
    wanted = tokens[:, 1:]
    there = wanted != PAD_TOKEN
    logprobs = F.log_softmax(logits, -1).gather(-1, wanted[..., None])[..., 0]
    each = logprobs if method == "sumlogprob" else logprobs.exp()
    mean = (each * there).sum(1) / (there.sum(1) + _EPS)
    likelihood = (mean.exp() if method == "sumlogprob" else mean).view_as(scores)
    return (likelihood * scores).clamp(min=0).sqrt()
