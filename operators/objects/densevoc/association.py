"""Which detections show the same object: the association transformer of Dense VOC.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), section 3.2, after Zhou et al.,
"Global Tracking Transformers" (CVPR 2022). There are no norms, no positions and no mask of keys: a detection without a
feature still gives a token that others attend to, so its neighbours' scores depend on how many of those there are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Association", "AssociationAttention", "AssociationConfig", "is_object"]


@dataclass(frozen=True)
class AssociationConfig:
    """Sizes of an `Association`; the defaults are the published model.

    Attributes:
        feature_size: numbers of one RoI feature, r * r * C.
        width: of a token, a multiple of `num_heads`.
        num_heads: of every attention.
    """

    feature_size: int = 7 * 7 * 256
    width: int = 512
    num_heads: int = 8

    def __post_init__(self) -> None:
        """Check the sizes against each other."""
        if min(self.feature_size, self.width, self.num_heads) < 1:
            raise ValueError(f"all sizes of an association must be at least 1: {self.to_dict()}")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}; change one of them")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; `AssociationConfig(**values)` restores the config."""
        return asdict(self)


class Association(nn.Module):
    """Scores how likely each of M detections, of all frames together, is the same object as each other one."""

    def __init__(self, config: AssociationConfig | None = None) -> None:
        """Random weights; None = the published sizes."""
        super().__init__()
        self.config = config = config or AssociationConfig()
        self.fc1 = nn.Linear(config.feature_size, config.width)
        self.fc2 = nn.Linear(config.width, config.width)
        self.encoder = _Block(config)
        self.decoder = _Block(config)

    def embed(self, features: Tensor) -> Tensor:
        """Tokens (M, width) of RoI features (T, N, r*r, C) or (M, r*r, C), whose last two axes are one number each.

        A token depends on its own feature alone, so a stream keeps tokens and computes `relate` anew.
        """
        flat = features.reshape(-1, self.config.feature_size)
        return F.relu(self.fc2(F.relu(self.fc1(flat))))

    def relate(self, tokens: Tensor) -> Tensor:
        """Logits (..., M, M) of tokens (..., M, width); row i says who is the same object as i. Not symmetric."""
        encoded = self.encoder(tokens, tokens)
        decoded = self.decoder(tokens, encoded)
        return decoded @ encoded.transpose(-1, -2)  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        """Logits (M, M) of all pairs of RoI features, (T, N, r*r, C) with M = T * N, or (M, r*r, C)."""
        return self.relate(self.embed(features))

    def scores(self, features: Tensor) -> Tensor:
        """Probabilities (M, M) of all pairs, 0 where one of them has no feature; arguments as for `forward`."""
        real = is_object(features).flatten().to(features.dtype)
        return torch.sigmoid(self(features)) * real[:, None] * real


def is_object(features: Tensor) -> Tensor:
    """Bool (...), False where a RoI feature (..., r*r, C) is zero: background, or a slot without a detection."""
    return features.square().sum((-2, -1)) > 0


class AssociationAttention(nn.Module):
    """Multi-head attention with biases everywhere."""

    def __init__(self, config: AssociationConfig) -> None:
        """Random weights."""
        super().__init__()
        self.heads = config.num_heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Tokens (..., M, width) ask those of `source` (..., S, width)."""
        query, key, value = (
            layer(of).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
            for layer, of in ((self.query, x), (self.key, source), (self.value, source))
        )  # ..., heads, M or S, head width
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(-3, -2).flatten(-2))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Attention and a two-layer MLP, each added to what it was given."""

    def __init__(self, config: AssociationConfig) -> None:
        super().__init__()
        self.attention = AssociationAttention(config)
        self.mlp_in = nn.Linear(config.width, config.width)
        self.mlp_out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(..., M, width) of tokens that ask `source`."""
        x = x + self.attention(x, source)
        return x + self.mlp_out(F.relu(self.mlp_in(x)))  # type: ignore[no-any-return]
