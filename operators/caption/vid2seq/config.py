"""Sizes and options of a Vid2Seq model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from ...errors import OnlookerError
from ..contexts import StreamingOptions
from ..dense_config import SearchConfig
from ..time_tokens import TimeTokens

Precision = Literal["float32", "bfloat16"]


class Vid2SeqError(OnlookerError):
    """A Vid2Seq model cannot be made, loaded or fed as asked; the message names the value and what to do."""


@dataclass(frozen=True)
class Vid2SeqConfig:
    """Sizes and options of a `Vid2Seq`; the defaults are the published model (its text part is T5 v1.1 base).

    Attributes:
        vocab_size: V, rows of the word embedding, time tokens included; they stand last.
        num_bins: Q, number of time tokens.
        num_frames: T, frames of a video; the visual encoder has one position for each.
        width: D, of all hidden states.
        feature_width: of the frame features; None = D. Others are projected, which the published model does not.
        num_heads: attention heads of the text model.
        head_dim: width of one of them.
        ffn_size: inner width of its gated feed-forward part.
        encoder_layers: layers that read earlier captions.
        decoder_layers: layers that write.
        relative_buckets: buckets of relative positions.
        relative_max_distance: distances from here on share the last bucket.
        dropout: of the text model, in training only.
        tie_word_embeddings: the output uses the word embedding, scaled by D ** -0.5, instead of a kernel of its own.
        visual_layers: layers of the visual encoder.
        visual_heads: its attention heads; D is a multiple.
        visual_ffn_size: inner width of its feed-forward part.
        visual_dropout: its dropout, in training only.
        begin_token: starts a text; the same id is padding.
        end_token: ends a text.
        dtype: of the text model's activations. The visual encoder always computes in float32.
        max_length: L, positions of an output and of its context, begin and end included.
        train_points: P, decoding points in training.
        test_points: P, decoding points else.
        search: how texts are searched.
        context: what a point sees of the earlier ones.
    """

    vocab_size: int = 32228
    num_bins: int = 100
    num_frames: int = 100
    width: int = 768
    feature_width: int | None = None
    num_heads: int = 12
    head_dim: int = 64
    ffn_size: int = 2048
    encoder_layers: int = 12
    decoder_layers: int = 12
    relative_buckets: int = 32
    relative_max_distance: int = 128
    dropout: float = 0.1
    tie_word_embeddings: bool = False
    visual_layers: int = 12
    visual_heads: int = 12
    visual_ffn_size: int = 2048
    visual_dropout: float = 0.0
    begin_token: int = 0
    end_token: int = 1
    dtype: Precision = "float32"
    max_length: int = 256
    train_points: int = 8
    test_points: int = 2
    search: SearchConfig = field(default_factory=SearchConfig)
    context: StreamingOptions = field(default_factory=StreamingOptions)

    def __post_init__(self) -> None:
        """Check the values against each other."""
        if self.width % self.visual_heads:
            raise Vid2SeqError(f"width {self.width} is not a multiple of visual_heads {self.visual_heads}; change one")
        if not 2 <= self.num_bins < self.vocab_size:
            raise Vid2SeqError(f"num_bins {self.num_bins} does not leave words in {self.vocab_size} tokens")
        if self.begin_token != 0:
            # Attention masks tell padding from text by id > 0 and rely on the begin token being hidden by it.
            raise Vid2SeqError(f"begin_token {self.begin_token} is not supported: T5 starts texts with padding, id 0")
        words = self.vocab_size - self.num_bins
        if not 0 < self.end_token < words:
            raise Vid2SeqError(f"end_token {self.end_token} must be a word, 1..{words - 1}")
        if self.dtype not in get_args(Precision):
            raise Vid2SeqError(f"dtype {self.dtype!r} is not supported: use {' or '.join(get_args(Precision))}")

        if self.max_length < 3:
            raise Vid2SeqError(f"max_length {self.max_length} must be at least 3: begin, a token, end")
        for name in ("train_points", "test_points"):
            if not 1 <= getattr(self, name) <= self.num_frames:
                raise Vid2SeqError(f"{name} {getattr(self, name)} must lie in 1..{self.num_frames}, the frames")

    @property
    def times(self) -> TimeTokens:
        """The time tokens, the last Q of the vocabulary."""
        return TimeTokens(self.vocab_size - self.num_bins, self.num_bins)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vid2SeqConfig:
        """The config that `to_dict` wrote; missing values take their defaults."""
        rest = dict(values)
        search = SearchConfig(**rest.pop("search", {}))
        context = StreamingOptions(**rest.pop("context", {}))
        return cls(**rest, search=search, context=context)
