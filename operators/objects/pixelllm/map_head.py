"""Where a word is, told by the map: a word looks for its cell, and the cell tells the box around it.

Not in the paper, whose head regresses points from a word's hidden state alone and needs very much data for it. Here the
hidden state is a query over the cells of the image features; each cell proposes a box for the word, and the word's box
is their mean, weighed by how well the cells answer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MapHead(nn.Module):
    """Two corners for every word, from the features that the adapter reads."""

    def __init__(self, word_width: int, map_width: int, hidden: int) -> None:
        """Random weights for words of `word_width`, maps of `map_width` channels and `hidden` inner ones."""
        super().__init__()
        self.word_norm = nn.LayerNorm(word_width)
        self.map_norm = nn.LayerNorm(map_width)
        self.query = nn.Linear(word_width, hidden)
        self.key = nn.Linear(map_width, hidden)
        self.asked = nn.Linear(word_width, hidden)
        self.seen = nn.Linear(map_width, hidden)
        self.reach = nn.Linear(hidden, 4)
        nn.init.constant_(self.reach.bias, -1.5)  # boxes of a third of the frame to begin with

    def forward(self, words: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Words (B, N, L, D) and maps (B, h, w, C) -> corners and the cells' share in them.

        Returns:
            (B, N, L, 2, 2) points, x and y in 0..1 of the frame, and (B, N, L, h * w) logits of the cells.
        """
        height, width = grid.shape[1:3]
        cells = self.map_norm(grid).flatten(1, 2)  # B, h * w, C
        asking = self.word_norm(words)
        query, key = self.query(asking), self.key(cells)
        logits = torch.einsum("bnld,bcd->bnlc", query, key) * query.shape[-1] ** -0.5
        hidden = F.relu(self.asked(asking)[:, :, :, None] + self.seen(cells)[:, None, None])  # B, N, L, h * w, H
        reach = self.reach(hidden).sigmoid()  # left, up, right, down
        centres = cell_centres(height, width).to(reach)
        corners = torch.cat([centres - reach[..., :2], centres + reach[..., 2:]], -1)
        box = torch.einsum("bnlc,bnlcd->bnld", logits.softmax(-1), corners)
        return box.view(*box.shape[:-1], 2, 2), logits


def cell_centres(height: int, width: int) -> Tensor:
    """(h * w, 2) x and y in 0..1, row by row."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
