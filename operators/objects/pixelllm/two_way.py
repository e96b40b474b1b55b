"""The two-way transformer of Segment Anything: a few query tokens and a map read each other.

Source: Kirillov et al., "Segment Anything" (2023), appendix A. PixelLLM's adapters borrow it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-5


class CrossAttention(nn.Module):
    """Multi-head attention with an inner width of its own."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        """Random weights; `inner` is a multiple of `heads`."""
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B, n, D), k and v (B, m, D) -> (B, n, D)."""
        mixed = F.scaled_dot_product_attention(
            self._split(self.q_proj(q)), self._split(self.k_proj(k)), self._split(self.v_proj(v))
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # B, heads, n, head_dim


class TwoWayMlp(nn.Module):
    """The feed-forward part, with a ReLU."""

    def __init__(self, width: int, inner: int) -> None:
        """Random weights."""
        super().__init__()
        self.lin1 = nn.Linear(width, inner)
        self.lin2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        return self.lin2(F.relu(self.lin1(x)))  # type: ignore[no-any-return]


class TwoWayBlock(nn.Module):
    """Queries read each other, then the map; the map reads the queries. Post-norm."""

    def __init__(self, width: int, heads: int, mlp_size: int, first: bool) -> None:
        """Random weights; the first block's queries are the position codes themselves."""
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(width, width, heads)
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.cross_attn_token_to_image = CrossAttention(width, width // 2, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = TwoWayMlp(width, mlp_size)
        self.norm3 = nn.LayerNorm(width, eps=_EPS)
        self.norm4 = nn.LayerNorm(width, eps=_EPS)
        self.cross_attn_image_to_token = CrossAttention(width, width // 2, heads)

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, n, D) and map (B, m, D) with the position codes of both -> the same, read once."""
        if self.first:
            queries = self.self_attn(queries, queries, queries)  # in place of them, not added
        else:
            placed = queries + query_pe
            queries = queries + self.self_attn(placed, placed, queries)
        queries = self.norm1(queries)
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + query_pe, keys + key_pe, keys))
        queries = self.norm3(queries + self.mlp(queries))
        keys = self.norm4(keys + self.cross_attn_image_to_token(keys + key_pe, queries + query_pe, queries))
        return queries, keys


class TwoWayTransformer(nn.Module):
    """Blocks, and a last look of the queries at the map."""

    def __init__(self, depth: int, width: int, heads: int = 8, mlp_size: int = 2048) -> None:
        """Random weights."""
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(width, heads, mlp_size, layer == 0) for layer in range(depth))
        self.final_attn_token_to_image = CrossAttention(width, width // 2, heads)
        self.norm_final_attn = nn.LayerNorm(width, eps=_EPS)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, m, D), its position codes (m, D) or (B, m, D), query tokens (B, n, D) -> tokens, map."""
        queries, keys = tokens, image
        image_pe = torch.broadcast_to(image_pe, image.shape)
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe)
        queries = queries + self.final_attn_token_to_image(queries + tokens, keys + image_pe, keys)
        return self.norm_final_attn(queries), keys
