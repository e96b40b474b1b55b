"""Vid2Seq: frame features through a temporal transformer, earlier captions through a T5 encoder, a T5 decoder on both.

Source: Yang et al., "Vid2Seq" (CVPR 2023), in the form that Zhou et al., "Streaming Dense Video Captioning" (CVPR
2024) give it. There is no clustering memory: what was seen until a decoding point is stretched to the full number of
frames, so that the visual encoder always gets sequences of one length.

The text model is made of transformers' T5 stacks (v1.1: gated GELU, shared relative position bias, attention logits
not scaled, RMS norms). Their masks are given ready-made, since the reference's differ from transformers' own: padding
is masked as a query too, and whether the decoder may look at a position depends on the token *after* it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import AttentionInterface, T5Config
from transformers.models.t5.modeling_t5 import T5Stack

from . import rounding
from .config import Vid2SeqConfig, Vid2SeqError

_EPS_VISUAL = 1e-6
# A row whose keys are all masked must weigh them equally, as the reference does: hence a number, not infinity.
_MASKED = -1e10


@dataclass(frozen=True)
class Encoded:
    """What the decoder attends to, for R texts.

    Attributes:
        states: (R, S, D) visual states, then those of the earlier captions, in the dtype of the text model.
        mask: (R, S) bool, True where a state may be attended to.
    """

    states: Tensor
    mask: Tensor


class VisualEncoder(nn.Module):
    """Pre-norm transformer over T frame features with learned positions, in float32."""

    def __init__(self, config: Vid2SeqConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        wide = config.feature_width
        self.projection = nn.Identity() if wide is None else nn.Linear(wide, config.width)
        self.positions = nn.Parameter(torch.empty(config.num_frames, config.width))
        self.dropout = nn.Dropout(config.visual_dropout)
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.visual_heads,
            config.visual_ffn_size,
            config.visual_dropout,
            # A function: PyTorch takes an nn.GELU module for the exact GELU, whatever its option says.
            activation=_tanh_gelu,
            layer_norm_eps=_EPS_VISUAL,
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(config.width, eps=_EPS_VISUAL)
        self.stack = nn.TransformerEncoder(layer, config.visual_layers, norm, enable_nested_tensor=False)
        nn.init.normal_(self.positions, std=0.02)
        self.apply(_init_visual)

    def forward(self, features: Tensor) -> Tensor:
        """(R, T, feature_width) -> (R, T, D) float32."""
        return self.stack(self.dropout(self.projection(features.float()) + self.positions))  # type: ignore[no-any-return]


class Vid2Seq(nn.Module):
    """The whole model; `forward` gives the logits of given texts, `decoding.TextState` those of one more token.

    Parameters are float32. With `dtype: bfloat16` the text model computes with copies of them rounded at every call, so
    that training keeps exact weights; `round_weights` rounds them once and for all. The output layer is always
    computed in float32 and its result then rounded to `dtype`. bfloat16 results are the reference's bit for bit when
    that runs operation by operation; compiled as a whole it rounds less often.

    Dropout is drawn for every position, as transformers does it; the reference drops the same channels at all
    positions of a text.
    """

    def __init__(self, config: Vid2SeqConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.config = config
        self.visual = VisualEncoder(config)
        self.shared = nn.Embedding(config.vocab_size, config.width)
        self.encoder = _stack(config, decoder=False)
        self.decoder = _stack(config, decoder=True)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)
        nn.init.normal_(self.shared.weight)
        if self.lm_head is not None:
            nn.init.normal_(self.lm_head.weight, std=config.width**-0.5)

    @property
    def dtype(self) -> torch.dtype:
        """Of the text model's activations and of the logits."""
        return torch.bfloat16 if self.config.dtype == "bfloat16" else torch.float32

    def round_weights(self) -> Vid2Seq:
        """Keep the text stacks' weights in `dtype`: the same results with less memory and work, not for training."""
        self.encoder.to(self.dtype)
        self.decoder.to(self.dtype)
        return self

    def encode_visual(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Visual states of what was seen until given frames.

        Args:
            features: (B, T, feature_width) one per frame, the whole video.
            frames: (B, C) or (C,) int64, index of the last frame seen at each point; None = the whole video, once and
                not stretched.

        Returns:
            (B, C, T, D) float32, or (B, T, D) without `frames`.

        Raises:
            Vid2SeqError: features of another length or width.
        """
        config = self.config
        width = config.width if config.feature_width is None else config.feature_width
        if features.ndim != 3 or features.shape[1:] != (config.num_frames, width):
            raise Vid2SeqError(
                f"features of shape {tuple(features.shape)}: this model takes (videos, {config.num_frames} frames, "
                f"{width}); sample as many frames as it was trained with"
            )
        if frames is None:
            return self.visual(features)  # type: ignore[no-any-return]
        batch = features.shape[0]
        frames = frames.expand(batch, -1)
        index = stretch(frames, config.num_frames)  # B, C, T
        rows = torch.arange(batch, device=features.device)[:, None, None]
        seen = features[rows, index]  # B, C, T, D
        return self.visual(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])  # type: ignore[no-any-return]

    def encode_prefix(self, prefix: Tensor) -> Tensor:
        """States (R, P, D) of earlier captions (R, P) int64, in `dtype`; rows of padding hold nothing of use."""
        words = prefix > 0
        mask = words[:, None, :, None] & words[:, None, None, :]  # R, 1, P, P
        return self._run(self.encoder, inputs_embeds=self.embed(prefix), attention_mask=self.bias(mask))

    def join(self, visual: Tensor, prefix: Tensor | None = None) -> Encoded:
        """Everything that a text may look at: visual states (R, T, D) and earlier captions (R, P) int64, if any."""
        states = visual.to(self.dtype)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        if prefix is not None:
            states = torch.cat([states, self.encode_prefix(prefix)], 1)
            mask = torch.cat([mask, prefix > 0], 1)
        return Encoded(states, mask)

    def decode(self, tokens: Tensor, encoded: Encoded) -> Tensor:
        """Hidden states (R, L, D) of whole texts (R, L) int64."""
        # The token that a position has to predict says whether it is part of the text.
        real = F.pad(tokens[:, 1:], (0, 1)) > 0  # R, L
        length = tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        mask = real[:, None, :, None] & real[:, None, None, :] & causal  # R, 1, L, L
        cross = real[:, None, :, None] & encoded.mask[:, None, None, :]  # R, 1, L, S
        return self._run(
            self.decoder,
            inputs_embeds=self.embed(tokens),
            attention_mask=self.bias(mask),
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=self.bias(cross),
            use_cache=False,
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) in `dtype` of the token after each of the hidden states (..., D)."""
        scale = self.config.width**-0.5 if self.lm_head is None else 1.0
        kernel = (self.shared if self.lm_head is None else self.lm_head).weight
        return (F.linear(hidden.float(), kernel.float()) * scale).to(self.dtype)

    def forward(
        self, features: Tensor, tokens: Tensor, prefix: Tensor | None = None, frames: Tensor | None = None
    ) -> Tensor:
        """Teacher forcing.

        Args:
            features: (B, T, feature_width) of the frames.
            tokens: (B, C, L) int64, C texts per video, each begun with the begin token and padded with 0.
            prefix: (B, C, P) int64 earlier captions of each text; None = no prefix.
            frames: (B, C) int64 last frame seen by each text; None = all texts see the whole video.

        Returns:
            (B * C, L, V) logits of the token after each one, in `dtype`.
        """
        visual = self.encode_visual(features, frames)
        if frames is None:
            visual = visual[:, None].expand(-1, tokens.shape[1], -1, -1)
        encoded = self.join(visual.flatten(0, 1), None if prefix is None else prefix.flatten(0, 1))
        return self.logits(self.decode(tokens.flatten(0, 1), encoded))

    def forward_tokens(
        self, tokens: Tensor, targets: Tensor, context: Tensor | None = None, frames: Tensor | None = None
    ) -> Tensor:
        """`forward` from the tokens (B, T, N, feature_width) of a tower: a frame's features are their mean."""
        return self(tokens.mean(2), targets, context, frames)  # type: ignore[no-any-return]

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids (R, L) int64 -> (R, L, D) in `dtype`."""
        return self.shared(tokens).to(self.dtype)  # type: ignore[no-any-return]

    def bias(self, mask: Tensor) -> Tensor:
        """What is added to attention logits, in `dtype`: 0 where `mask` is True."""
        return torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill(~mask, _MASKED)

    def _run(self, stack: nn.Module, **inputs: Any) -> Tensor:
        output = self.run_stack(stack, **inputs)
        return output.last_hidden_state  # type: ignore[no-any-return]

    def run_stack(self, stack: nn.Module, **inputs: Any) -> Any:
        """Call a text stack, with its weights in `dtype`."""
        if next(stack.parameters()).dtype == self.dtype:
            return stack(**inputs)
        weights = {name: weight.to(self.dtype) for name, weight in stack.named_parameters()}
        return functional_call(stack, weights, kwargs=inputs)


def stretch(frames: Tensor, num_frames: int) -> Tensor:
    """Which frame stands in each of T slots when only the frames 0..t were seen: the nearest of T equal steps.

    Args:
        frames: (...) int64, t.
        num_frames: T.

    Returns:
        (..., T) int64, slot m holds frame floor(0.5 + t * m / (T - 1)).
    """
    # In float32, by the reciprocal and in this order: where a step ends halfway between two frames, rounding decides.
    reciprocal = torch.ones((), device=frames.device) / max(num_frames - 1, 1)
    slots = torch.arange(num_frames, device=frames.device)
    return (frames[..., None] * reciprocal * slots + 0.5).long()


def _stack(config: Vid2SeqConfig, decoder: bool) -> nn.Module:
    AttentionInterface.register(rounding.ATTENTION, rounding.attention)
    layers = config.decoder_layers if decoder else config.encoder_layers
    settings: dict[str, Any] = dict(
        vocab_size=1,  # no table of its own, see below
        d_model=config.width,
        d_kv=config.head_dim,
        d_ff=config.ffn_size,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=config.num_heads,
        relative_attention_num_buckets=config.relative_buckets,
        relative_attention_max_distance=config.relative_max_distance,
        dropout_rate=config.dropout,
        feed_forward_proj="gated-gelu",
        eos_token_id=None,
        is_decoder=decoder,
        use_cache=False,
        attn_implementation=rounding.ATTENTION,
    )
    stack: Any = T5Stack(T5Config(**settings))
    # Both stacks get their inputs from the shared embedding.
    del stack.embed_tokens
    for block in stack.block:
        block.layer[-1].DenseReluDense.act = rounding.TanhGelu()
    return stack  # type: ignore[no-any-return]


def _tanh_gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _init_visual(module: nn.Module) -> None:
    if isinstance(module, nn.MultiheadAttention):
        for kernel in module.in_proj_weight.chunk(3):
            nn.init.xavier_uniform_(kernel)
        nn.init.zeros_(module.in_proj_bias)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
