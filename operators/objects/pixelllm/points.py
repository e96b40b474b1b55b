"""Where a word is: the point head, and the geometry between points, boxes and tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import PointConfig

_KINDS = {"pad", "begin", "end", "end-1", "text"}


class PointHead(nn.Module):
    """Points of every word from its hidden state."""

    def __init__(self, config: PointConfig, width: int) -> None:
        """Random weights for words of `width`."""
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(width, eps=1e-6) if config.pre_norm else nn.Identity()
        outputs = config.num_points * (3 + config.num_classes)
        widths = [width, *[config.hidden_size] * (config.depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Words (..., D) -> points (..., n, 2), x and y in 0..1 of the picture but not clipped, and unused logits."""
        x = self.norm(words)
        for layer in self.layers[:-1]:
            x = F.gelu(layer(x)) if self.config.activation == "gelu" else F.relu(layer(x))
        found = self.layers[-1](x).unflatten(-1, (self.config.num_points, -1))
        return (found[..., :2] + 1.0) * 0.5, found[..., 2:]


def to_pixels(points: Tensor, sizes: Tensor) -> Tensor:
    """Relative points (B, ..., 2) in pixels of pictures of `sizes` (B, 2), each (height, width)."""
    return points * sizes.flip(-1).view(-1, *[1] * (points.ndim - 2), 2)


def solid_grid(side: int, offset: bool = False) -> Tensor:
    """Evenly spaced points (side ** 2, 2) in the unit square, row by row; below 1 only its two corners.

    Args:
        side: points along a side.
        offset: keep half a step from the border.
    """
    if side < 1:
        return torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    start = 0.5 / side if offset else 0.0
    line = torch.linspace(start, 1.0 - start, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def border_grid(side: int, offset: bool = False) -> Tensor:
    """The points of `solid_grid` at the border: top, right, bottom, left; with `side` below 3 all of them."""
    grid = solid_grid(side, offset)
    if side < 3:
        return grid
    square = grid.view(side, side, 2)
    # Every side leaves one of its corners to a neighbour.
    return torch.cat([square[0, :-1], square[:-1, -1], square[-1, 1:], square[1:, 0]])


def boxes_to_points(boxes: Tensor, grid: Tensor) -> Tensor:
    """The points of a unit grid (n, 2) in boxes (..., 4) xyxy: (..., n, 2)."""
    corner, extent = boxes[..., None, :2], boxes[..., None, 2:] - boxes[..., None, :2]
    return corner + grid.to(boxes) * extent


def points_to_boxes(points: Tensor, valid: Tensor | None = None, per_side: int = 0) -> Tensor:
    """The boxes (..., 4) xyxy around points (..., n, 2).

    Args:
        points: x, y.
        valid: (..., n) bool, points that count. Where none does, the box is turned inside out (x0 > x1).
        per_side: widen by half a step of a grid of so many points a side; up to 1 = do not.
    """
    low, high = points.amin(-2), points.amax(-2)
    if valid is not None:
        kept = valid[..., None]
        low, high = (
            torch.where(kept, points, high[..., None, :] + 1.0).amin(-2),
            torch.where(kept, points, low[..., None, :] - 1.0).amax(-2),
        )
    if per_side > 1:
        step = (high - low) / (per_side - 1) / 2
        low, high = low - step, high + step
    return torch.cat([low, high], -1)


def word_boxes(points: Tensor, valid: Tensor) -> Tensor:
    """The box (..., 4) around all points (..., L, n, 2) of the words that `valid` (..., L) marks."""
    return points_to_boxes(points.flatten(-3, -2), valid[..., None].expand(points.shape[:-1]).flatten(-2))


def token_mask(tokens: Tensor, ignored: str, begin: int, end: int) -> Tensor:
    """Which tokens (..., L) count, bool.

    Args:
        tokens: ids, padded with 0.
        ignored: kinds that do not, joined by commas: `pad`, `begin`, `end`, `end-1` (the token before an end),
            `text` (all but begin, end and padding). A leading `^` turns the answer round; "" ignores none.
        begin: id of the begin token.
        end: id of the end token.

    Raises:
        ValueError: an unknown kind.
    """
    kinds = {kind for kind in ignored.removeprefix("^").split(",") if kind}
    if unknown := kinds - _KINDS:
        raise ValueError(f"unknown kinds of tokens {sorted(unknown)}; known: {sorted(_KINDS)}")
    special = (tokens == begin) | (tokens == end) | (tokens == 0)
    dropped = {
        "pad": tokens == 0,
        "begin": tokens == begin,
        "end": tokens == end,
        "end-1": F.pad(tokens[..., 1:], (0, 1)) == end,
        "text": ~special,
    }
    mask = torch.ones_like(tokens, dtype=torch.bool)
    for kind in kinds:
        mask = mask & ~dropped[kind]
    return ~mask if ignored.startswith("^") else mask


def pad_after_end(tokens: Tensor, end: int) -> Tensor:
    """Tokens (..., L) with 0 for all that follows the first end, as texts look in training."""
    return tokens.where((tokens == end).cumsum(-1) <= 1, 0)
