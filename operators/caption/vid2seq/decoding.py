"""Texts from a Vid2Seq model: one token at a time with cached keys and values, and whole videos point by point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from ...memory.alternatives import checkpoint_frames
from ..contexts import StreamingResult, streaming_decode
from ..dense_config import SearchConfig
from ..search import beam_search, greedy_search
from .model import Encoded, Vid2Seq


class TextState:
    """Incremental decoding over `Encoded`, with the keys and values of what was written so far.

    A `search.StepFunction` with the numbers of `Vid2Seq.decode`. Its rows are batch items times `beams`, those of one
    item next to each other. All of them start with the same token, so the first step is computed once per item.
    """

    def __init__(self, model: Vid2Seq, encoded: Encoded, beams: int = 1) -> None:
        """Ready to write the first token of `beams` texts for each of the B rows of `encoded`."""
        self._model = model
        self._encoded = encoded
        self._beams = beams
        self._cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._visible = torch.empty(len(encoded.mask), 0, dtype=torch.bool, device=encoded.mask.device)  # rows, written
        self._cross = model.bias(encoded.mask[:, None, None, :])  # B, 1, 1, S; rows later

    def step(self, tokens: Tensor, position: int) -> Tensor:
        """Write `tokens` (rows,) at `position` (0 first, then 1, ...) and return the logits (rows, V) of what follows.

        Raises:
            ValueError: the position is not the next one.
        """
        if position != self._visible.shape[1]:
            raise ValueError(f"position {position} does not follow the {self._visible.shape[1]} tokens written so far")
        if position == 0:
            return self._spread(self._write(tokens[:: self._beams]))
        # Padding that was written hides the position before it, the one that predicted it.
        self._visible[:, -1] = tokens > 0
        return self._write(tokens)

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` (rows,) int64 has written; both must belong to one batch item."""
        self._cache.self_attention_cache.reorder_cache(rows)
        self._visible = self._visible[rows]

    def _write(self, tokens: Tensor) -> Tensor:
        own = self._visible.new_ones(len(tokens), 1)
        self._visible = torch.cat([self._visible, own], 1)
        output = self._model.run_stack(
            self._model.decoder,
            inputs_embeds=self._model.embed(tokens[:, None]),  # rows, 1, D
            attention_mask=self._model.bias(self._visible[:, None, None, :]),  # rows, 1, 1, written
            encoder_hidden_states=self._encoded.states,  # read in the first step only
            encoder_attention_mask=self._cross,
            past_key_values=self._cache,
            use_cache=True,
        )
        return self._model.logits(output.last_hidden_state[:, 0])

    def _spread(self, logits: Tensor) -> Tensor:
        """From one row per item to `beams` rows."""
        self._cache.batch_repeat_interleave(self._beams)
        self._visible = self._visible.repeat_interleave(self._beams, 0)
        self._cross = self._cross.repeat_interleave(self._beams, 0)
        return logits.repeat_interleave(self._beams, 0)


@torch.no_grad()
def search_text(model: Vid2Seq, encoded: Encoded, search: SearchConfig | None = None) -> Tensor:
    """The likeliest text (B, max_length) int64 about each row of `encoded`; `search` overrides the config's."""
    config = model.config
    search = search or config.search
    begin = torch.full((len(encoded.mask), config.max_length), config.end_token, device=encoded.mask.device)
    begin[:, 0] = config.begin_token
    if search.method == "greedy":
        return greedy_search(TextState(model, encoded), begin, config.end_token)[0]
    state = TextState(model, encoded, search.beam)
    return beam_search(state, begin, config.end_token, search.beam, search.alpha).best


@torch.no_grad()
def decode_videos(model: Vid2Seq, features: Tensor, search: SearchConfig | None = None) -> StreamingResult:
    """Dense captions of B videos at the config's `test_points`, each point told of the earlier ones.

    Point j sees the frames up to (j + 1) * (T // P) - 1; frames behind the last point are never seen.

    Args:
        model: in evaluation mode.
        features: (B, T, feature_width) one per frame.
        search: overrides the config's.

    Raises:
        Vid2SeqError: features of another shape.
    """
    config = model.config
    last = torch.tensor(checkpoint_frames(config.num_frames, config.test_points), device=features.device) - 1
    visual = model.encode_visual(features, last)  # B, P, T, D

    def decode_point(point: int, context: Tensor | None) -> Tensor:
        return search_text(model, model.join(visual[:, point], context), search)

    return streaming_decode(
        decode_point,
        config.test_points,
        config.times,
        batch=len(features),
        length=config.max_length,
        begin=config.begin_token,
        end=config.end_token,
        options=config.context,
        device=features.device,
    )
