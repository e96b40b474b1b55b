"""GIT-style text decoder: a prefix language model over memory tokens, earlier captions and the caption being written.

Source: Wang et al., "GIT: A Generative Image-to-text Transformer for Vision and Language" (2022), in the form
that Zhou et al., "Streaming Dense Video Captioning" (CVPR 2024, section 3) decodes from a streaming memory.

One sequence `[visual (K) ; prefix (P) ; text (L)]` runs through a post-norm BERT encoder. Visual and prefix rows see
each other but never the text; text rows see both and the text up to themselves. Hence everything before the text is
computed once (`encode_context`) and only text rows are computed per token (`decode`), which gives the same numbers
as the whole sequence at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAD_TOKEN = 0

# The reference uses four different epsilons; they matter for parity, not for quality.
_EPS_PROJECTION = 1e-5
_EPS_EMBEDDING = 1e-8
_EPS_ATTENTION = 1e-5
_EPS_FFN = 1e-12


@dataclass(frozen=True)
class GitConfig:
    """Sizes and options of a `GitDecoder`; the defaults are the published model.

    Attributes:
        vocab_size: rows of the word embedding and of the output, time tokens included.
        visual_width: width D of a memory token.
        hidden_size: width H of the decoder, a multiple of `num_heads`.
        ffn_size: inner width of the feed-forward part.
        max_positions: longest prefix or text in tokens; positions restart at zero for each of them.
        dropout: after the embedding and on both residual branches, in training only.
        attention_dropout: on the attention weights, in training only.
        tie_word_embeddings: the output uses the word embedding as its kernel instead of one of its own.
        begin_token: id that starts a prefix and a text.
        end_token: id that ends them.
    """

    vocab_size: int = 30586
    visual_width: int = 1024
    hidden_size: int = 768
    num_heads: int = 12
    num_layers: int = 6
    ffn_size: int = 3072
    max_positions: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.1
    tie_word_embeddings: bool = False
    begin_token: int = 101
    end_token: int = 102

    def __post_init__(self) -> None:
        """Check the sizes against each other."""
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; change one of them"
            )
        for name in ("begin_token", "end_token"):
            if not 0 < getattr(self, name) < self.vocab_size:
                raise ValueError(f"{name} {getattr(self, name)} must lie in 1..{self.vocab_size - 1} (0 is padding)")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; `GitConfig(**values)` restores the config."""
        return asdict(self)


@dataclass(frozen=True)
class Context:
    """What text rows need of the rows before them.

    Attributes:
        keys: one (B, heads, S, head_dim) tensor per layer, S = visual + prefix rows.
        values: same shapes.
        mask: (B, S) bool, True where a row may be attended to.
    """

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor

    def repeat(self, times: int) -> Context:
        """Each batch item `times` times in a row, for beams."""
        return Context(
            [k.repeat_interleave(times, 0) for k in self.keys],
            [v.repeat_interleave(times, 0) for v in self.values],
            self.mask.repeat_interleave(times, 0),
        )


class GitAttention(nn.Module):
    """Multi-head attention, its output projection, the residual and the norm after it."""

    def __init__(self, config: GitConfig) -> None:
        """Random weights."""
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_heads
        self.head_dim = width // config.num_heads
        self.attention_dropout = config.attention_dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=_EPS_ATTENTION)
        self.dropout = nn.Dropout(config.dropout)

    def split(self, x: Tensor) -> Tensor:
        """(B, R, H) -> (B, heads, R, head_dim)."""
        return x.view(*x.shape[:2], self.heads, self.head_dim).transpose(1, 2)

    def key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, R, head_dim) of the rows x (B, R, H)."""
        return self.split(self.key(x)), self.split(self.value(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Rows x (B, R, H) attend to S keys and values; mask broadcasts to (B, heads, R, S), True = may attend."""
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(self.split(self.query(x)), keys, values, mask, dropout)
        mixed = mixed.transpose(1, 2).flatten(2)  # B, R, H
        return self.norm(x + self.dropout(self.dense(mixed)))  # type: ignore[no-any-return]


class GitLayer(nn.Module):
    """One post-norm transformer layer with the exact (erf) GELU."""

    def __init__(self, config: GitConfig) -> None:
        """Random weights."""
        super().__init__()
        self.attention = GitAttention(config)
        self.intermediate = nn.Linear(config.hidden_size, config.ffn_size)
        self.output = nn.Linear(config.ffn_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=_EPS_FFN)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(B, R, H) -> (B, R, H); arguments as in `GitAttention.forward`."""
        x = self.attention(x, keys, values, mask)
        return self.norm(x + self.dropout(self.output(F.gelu(self.intermediate(x)))))  # type: ignore[no-any-return]


class GitDecoder(nn.Module):
    """The decoder; `forward` gives the logits of a whole text, `TextState` those of one more token."""

    def __init__(self, config: GitConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.visual_projection = nn.Linear(config.visual_width, width)
        self.visual_norm = nn.LayerNorm(width, eps=_EPS_PROJECTION)
        self.words = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_positions, width)
        self.embedding_norm = nn.LayerNorm(width, eps=_EPS_EMBEDDING)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(GitLayer(config) for _ in range(config.num_layers))
        self.output = nn.Linear(width, config.vocab_size)
        self.apply(_init)
        nn.init.zeros_(self.positions.weight)
        if config.tie_word_embeddings:
            self.output.weight = self.words.weight

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token ids and their positions (B, L) or (L,) int64 -> (B, L, H)."""
        return self.dropout(self.embedding_norm(self.words(tokens) + self.positions(positions)))  # type: ignore[no-any-return]

    def encode_context(
        self, memory: Tensor, memory_mask: Tensor | None = None, prefix: Tensor | None = None
    ) -> Context:
        """Keys and values of the visual and prefix rows.

        Args:
            memory: (B, K, D) float memory tokens.
            memory_mask: (B, K) bool, False for padding tokens; None = all are real.
            prefix: (B, P) int64 earlier captions with their begin and end tokens, padded with 0; None = no prefix.
        """
        x = self.visual_norm(self.visual_projection(memory))  # B, K, H
        mask = x.new_ones(x.shape[:2], dtype=torch.bool) if memory_mask is None else memory_mask
        if prefix is not None:
            x = torch.cat([x, self.embed(prefix, _arange(prefix))], 1)  # B, K + P, H
            mask = torch.cat([mask, prefix > PAD_TOKEN], 1)
        rows = mask[:, None, None, :]  # B, 1, 1, S
        keys, values = [], []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, GitLayer)
            k, v = layer.attention.key_value(x)
            keys.append(k)
            values.append(v)
            # No row after the last layer is read, so its context rows need no output.
            if index + 1 < len(self.layers):
                x = layer(x, k, v, rows)
        return Context(keys, values, mask)

    def decode(
        self, tokens: Tensor, context: Context, positions: Tensor | None = None, text_mask: Tensor | None = None
    ) -> Tensor:
        """Hidden states (B, L, H) of whole texts, not yet projected to the vocabulary.

        Several texts about one context may be packed one after the other into a row; then `positions` (B, L) restart
        for each and `text_mask` (B, L, L) keeps them apart. By default the row is one text with a causal mask.
        """
        return self.decode_states(tokens, context, positions, text_mask)[-1]

    def decode_states(
        self, tokens: Tensor, context: Context, positions: Tensor | None = None, text_mask: Tensor | None = None
    ) -> list[Tensor]:
        """As `decode`, the hidden states of all depths: the embedding, then the output of each layer."""
        length = tokens.shape[1]
        if positions is None:
            positions = _arange(tokens)
        if text_mask is None:
            text_mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None]
        batch = tokens.shape[0]
        mask = torch.cat([context.mask[:, None, :].expand(-1, length, -1), text_mask.expand(batch, -1, -1)], 2)[
            :, None
        ]  # B, 1, L, S + L
        states = [self.embed(tokens, positions)]
        for layer, keys, values in zip(self.layers, context.keys, context.values, strict=True):
            assert isinstance(layer, GitLayer)
            k, v = layer.attention.key_value(states[-1])
            states.append(layer(states[-1], torch.cat([keys, k], 2), torch.cat([values, v], 2), mask))
        return states

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, L, V) float32 for the token after each of `tokens` (B, L); for the rest see `encode_context`."""
        context = self.encode_context(memory, memory_mask, prefix)
        return self.output(self.decode(tokens, context))  # type: ignore[no-any-return]


class TextState:
    """Incremental decoding of B texts over one context, with the keys and values of what was written so far.

    A `search.StepFunction`: `step` writes one token per row, `reorder` lets rows continue other rows of the same
    batch item (beams). The buffers have their final size from the start, so a step copies nothing but its own row.
    """

    def __init__(self, decoder: GitDecoder, context: Context, max_length: int) -> None:
        """Room for texts of `max_length` tokens about `context`.

        Raises:
            ValueError: the decoder has fewer positions.
        """
        if max_length > decoder.config.max_positions:
            raise ValueError(
                f"max_length {max_length} exceeds the decoder's {decoder.config.max_positions} positions; lower it"
            )
        self._decoder = decoder
        self._start = context.mask.shape[1]
        self._length = 0
        self._keys = [_room(k, max_length) for k in context.keys]
        self._values = [_room(v, max_length) for v in context.values]
        self._mask = F.pad(context.mask, (0, max_length), value=True)[:, None, None, :]  # B, 1, 1, S + L

    def step(self, tokens: Tensor, position: int) -> Tensor:
        """Write `tokens` (B,) at `position` (0 first, then 1, ...) and return the logits (B, V) of what follows."""
        if position != self._length:
            raise ValueError(f"position {position} does not follow the {self._length} tokens written so far")
        decoder = self._decoder
        row = self._start + position
        x = decoder.embed(tokens[:, None], torch.full_like(tokens[:, None], position))  # B, 1, H
        for layer, keys, values in zip(decoder.layers, self._keys, self._values, strict=True):
            assert isinstance(layer, GitLayer)
            k, v = layer.attention.key_value(x)
            keys[:, :, row] = k[:, :, 0]
            values[:, :, row] = v[:, :, 0]
            x = layer(x, keys[:, :, : row + 1], values[:, :, : row + 1], self._mask[..., : row + 1])
        self._length += 1
        return decoder.output(x[:, 0])  # type: ignore[no-any-return]

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` (B,) int64 has written; both must share their context."""
        text = slice(self._start, self._start + self._length)
        for buffer in (*self._keys, *self._values):
            buffer[:, :, text] = buffer[:, :, text].index_select(0, rows)


def _room(context: Tensor, length: int) -> Tensor:
    """(B, heads, S, d) -> the same with `length` more, empty rows."""
    return F.pad(context, (0, 0, 0, length))


def _arange(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1], device=tokens.device)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding) and not module.weight.is_meta:
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
