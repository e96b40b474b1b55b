"""What a tower itself thinks of a frame and a text, as one more input of the fusion. Not part of UnLoc as published.

A small fusion that learns from few photographs cannot learn anew how alike pictures and sentences are. The tower knows:
the cosine of their features, told as standard deviations over pictures of all kinds (`operators/tower/calibration`).
Beside it stands how much a frame differs from the one before, which shows borders.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HIDDEN = 10.0
"""Brings the values of unit features to the size that a hidden layer is made for."""
_CHANGE = 10.0
"""Brings 1 - cosine of neighbouring frames to the size of the other input."""


class Adapter(nn.Module):
    """Moves unit features a little, by one hidden layer that starts out as nothing; what comes out has length 1 again.

    A model without it takes the tower's features as they are.
    """

    def __init__(self, features: int, hidden: int) -> None:
        """For features of width E."""
        super().__init__()
        self.inner = nn.Linear(features, hidden)
        self.outer = nn.Linear(hidden, features)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(..., E) of any length to (..., E) of length 1."""
        unit = F.normalize(features, dim=-1)
        return F.normalize(unit + self.outer(F.gelu(self.inner(_HIDDEN * unit))), dim=-1)


class Similarity(nn.Module):
    """Adds the similarity of each frame and the text, and the frame's own change, to video tokens.

    Frames and texts are prepared once each, as rows of width E + 1 whose product is the calibrated similarity. A row of
    zeros is a frame that is not there.
    """

    def __init__(self, features: int, width: int, adapter: int) -> None:
        """Uncalibrated (mean 0, covariance 1): for E = `features`, tokens of `width`; `adapter` as in `UnlocConfig`."""
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(features), requires_grad=False)
        self.covariance = nn.Parameter(torch.eye(features), requires_grad=False)
        self.frame_adapter = Adapter(features, adapter) if adapter else None
        self.text_adapter = Adapter(features, adapter) if adapter else None
        self.embed = nn.Linear(2, width)

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Measure the moments of raw features (n, E) of pictures of all kinds."""
        rows = self._unit(images, self.frame_adapter).double()
        centred = rows - rows.mean(0)
        self.mean.copy_(rows.mean(0))
        self.covariance.copy_(centred.T @ centred / len(rows))

    def frames(self, features: Tensor) -> Tensor:
        """Raw features of frames (..., E) to rows (..., E + 1)."""
        unit = self._unit(features, self.frame_adapter)
        return torch.cat([unit, torch.ones_like(unit[..., :1])], -1)

    def texts(self, features: Tensor) -> Tensor:
        """Raw features of texts (..., E) to rows (..., E + 1)."""
        unit = self._unit(features, self.text_adapter)
        deviation = ((unit @ self.covariance) * unit).sum(-1, keepdim=True).clamp_min(1e-12).sqrt()
        return torch.cat([unit, -(unit @ self.mean).unsqueeze(-1)], -1) / deviation

    def forward(self, frames: Tensor, text: Tensor) -> Tensor:
        """What is added to the video tokens: of frames (P, T, E + 1) and a text (P, E + 1) each, (P, T, width)."""
        there = frames[..., -1]
        alike = (frames @ text.unsqueeze(-1)).squeeze(-1)  # P, T
        same = (frames[:, 1:, :-1] * frames[:, :-1, :-1]).sum(-1)
        change = _CHANGE * F.pad(1 - same, (1, 0))
        added: Tensor = self.embed(torch.stack([alike, change], -1)) * there.unsqueeze(-1)
        return added

    @staticmethod
    def _unit(features: Tensor, adapter: Adapter | None) -> Tensor:
        return F.normalize(features, dim=-1) if adapter is None else adapter(features)
