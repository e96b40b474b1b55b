"""Locations as tokens: the prompt encoder of Segment Anything for points and boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .map_head import cell_centres

_NEGATIVE, _POSITIVE, _TOP_LEFT, _BOTTOM_RIGHT = range(4)
NOT_A_POINT = -1
"""Label of a point that only fills a place."""


class PositionCode(nn.Module):
    """Random Fourier features of places in the picture; the frequencies are not trained."""

    def __init__(self, width: int) -> None:
        """Random frequencies for codes of an even width."""
        super().__init__()
        self.positional_encoding_gaussian_matrix = nn.Parameter(torch.randn(2, width // 2), requires_grad=False)

    def forward(self, places: Tensor) -> Tensor:
        """Places (..., 2) as x, y in 0..1 -> (..., C)."""
        angles = (2.0 * places - 1.0) @ self.positional_encoding_gaussian_matrix * (2.0 * math.pi)
        return torch.cat([angles.sin(), angles.cos()], -1)


class PromptEncoder(nn.Module):
    """Points, boxes and the places of a map as tokens of one width."""

    def __init__(self, width: int = 256) -> None:
        """Random weights."""
        super().__init__()
        self.pe_layer = PositionCode(width)
        self.point_embeddings = nn.ParameterList(nn.Parameter(torch.randn(1, width)) for _ in range(4))
        self.not_a_point_embed = nn.Parameter(torch.randn(1, width))
        self.no_mask_embed = nn.Parameter(torch.randn(1, width))

    def embed_points(self, points: Tensor, labels: Tensor, size: tuple[int, int], pad: bool = True) -> Tensor:
        """Points (..., P, 2) in pixels, labels (..., P): 1 inside, 0 outside, -1 none -> (..., P + pad, C).

        Args:
            points: x, y.
            labels: of the points.
            size: (height, width) in pixels of the picture they lie in.
            pad: append a point that is none, as without a box.
        """
        if pad:
            points = torch.cat([points, torch.zeros_like(points[..., :1, :])], -2)
            labels = torch.cat([labels, torch.full_like(labels[..., :1], NOT_A_POINT)], -1)
        labels = labels[..., None]
        code = torch.where(labels == NOT_A_POINT, self.not_a_point_embed, self._code(points, size))
        negative, positive = self.point_embeddings[_NEGATIVE], self.point_embeddings[_POSITIVE]
        code = code + (labels == 0) * negative + (labels == 1) * positive
        return torch.as_tensor(code)

    def embed_boxes(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (..., 4) xyxy in pixels -> (..., 2, C): their two corners."""
        corners = self._code(boxes.view(*boxes.shape[:-1], 2, 2), size)
        return corners + torch.cat([self.point_embeddings[_TOP_LEFT], self.point_embeddings[_BOTTOM_RIGHT]])

    def grid_code(self, grid: tuple[int, int]) -> Tensor:
        """(h, w, C): the codes of the centres of a map's cells."""
        code: Tensor = self.pe_layer(cell_centres(*grid).to(self.no_mask_embed))
        return code.view(*grid, -1)

    def _code(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Codes of pixels' centres."""
        code: Tensor = self.pe_layer((pixels + 0.5) / pixels.new_tensor([size[1], size[0]]))
        return code
