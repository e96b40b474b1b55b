"""Captions of objects and tracks: the text decoder of GIT on RoI features.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), section 3.3, after Wu et al.,
"GRiT: A Generative Region-to-text Transformer for Object Understanding" (2022). The decoder is `caption.git.GitDecoder`
without a prefix; its visual tokens have no positions, so their order does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onlooker.operators.caption.git import GitDecoder, TextState
from onlooker.operators.caption.search import greedy_search

__all__ = ["MAX_LENGTH", "Captions", "begin_tokens", "write_captions"]

MAX_LENGTH = 40
"""Tokens of a caption with its begin and end, of which the last slot always holds the end."""


@dataclass(frozen=True)
class Captions:
    """Texts and how sure the decoder is of them.

    Attributes:
        tokens: (..., L) int64 `begin, words, end, end, ...`.
        logprobs: (...) log-probability of the text including its end, by its number of words.
    """

    tokens: Tensor
    logprobs: Tensor


def begin_tokens(decoder: GitDecoder, rows: int, length: int = MAX_LENGTH) -> Tensor:
    """What decoding of `rows` texts starts from: (rows, length) int64, end tokens behind a begin token."""
    device = decoder.words.weight.device
    tokens = torch.full((rows, length), decoder.config.end_token, dtype=torch.int64, device=device)
    tokens[:, 0] = decoder.config.begin_token
    return tokens


@torch.no_grad()
def write_captions(
    decoder: GitDecoder, features: Tensor, mask: Tensor | None = None, max_length: int = MAX_LENGTH
) -> Captions:
    """The likeliest next word each time, never the same one twice in a row.

    Args:
        decoder: in eval mode.
        features: (..., S, C) visual tokens of each text, with one leading axis at least.
        mask: (..., S) bool, False for tokens that only fill up; None = all are real. A text without any is decoded
            from the language model alone.
        max_length: L, as `MAX_LENGTH`.
    """
    shape = features.shape[:-2]
    flat = features.flatten(0, -3)
    if not len(flat):
        empty = begin_tokens(decoder, 0, max_length).reshape(*shape, max_length)
        return Captions(empty, features.new_zeros(shape))
    context = decoder.encode_context(flat, None if mask is None else mask.flatten(0, -2))
    start = begin_tokens(decoder, len(flat), max_length)
    tokens, logprobs = greedy_search(TextState(decoder, context, max_length), start, decoder.config.end_token)
    return Captions(tokens.reshape(*shape, max_length), logprobs.reshape(shape))
