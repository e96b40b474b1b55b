"""From fused tokens to a logit per step, and to how far the moment reaches to both sides of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import FUSION_EPS, TimeConv, init_lecun
from .config import HeadConfig


class Scored(NamedTuple):
    """What a head says of every step of all levels, fine to coarse."""

    logits: Tensor
    """(..., N): that the text happens at the step, before the sigmoid."""
    displacements: Tensor | None
    """(..., N, 2): from the step back to the start and forth to the end, in strides of its level; None = not told."""


class ConvTower(nn.Module):
    """Norm, convolution and ReLU, `convs` times, then a linear layer; norms come first and nothing is added back."""

    def __init__(self, width: int, config: HeadConfig, outputs: int, bias: float) -> None:
        """Random weights, drawn as the reference draws them; `bias` is the first value of the output's."""
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=FUSION_EPS) for _ in range(config.convs))
        self.convs = nn.ModuleList(TimeConv(width, config.kernel) for _ in range(config.convs))
        self.output = nn.Linear(width, outputs)
        self.apply(init_lecun)
        if not self.output.weight.is_meta:
            nn.init.xavier_normal_(self.output.weight)
            nn.init.constant_(self.output.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., L, d) -> (..., L, outputs)."""
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(norm(x)).relu_()
        return self.output(x)  # type: ignore[no-any-return]


class LocalizationHead(nn.Module):
    """Logits and displacements, by two towers for all levels or two for each."""

    def __init__(self, width: int, levels: int, config: HeadConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.config = config
        towers = 1 if config.shared else levels
        self.classify = nn.ModuleList(ConvTower(width, config, 1, config.class_bias) for _ in range(towers))
        self.regress = nn.ModuleList(ConvTower(width, config, 2, config.box_bias) for _ in range(towers))
        self.scales = nn.Parameter(torch.ones(levels)) if config.shared else None
        self.shifts = nn.Parameter(torch.zeros(levels)) if config.shared else None

    def forward(self, levels: list[Tensor]) -> Scored:
        """Score tokens (P, T_l, d) of each level, or (B, C, T_l, d) of the C texts of each video.

        Without displacements per class, all texts of a video share theirs, and these are (B, N, 2).
        """
        logits, displacements = [], []
        for level, tokens in enumerate(levels):
            tower = 0 if self.config.shared else level
            logits.append(self.classify[tower](tokens).squeeze(-1))
            if tokens.ndim == 4 and not self.config.per_class_displacements:
                tokens = tokens.mean(1)
            raw = self.regress[tower](tokens)
            if self.scales is not None and self.shifts is not None:
                raw = raw * self.scales[level] + self.shifts[level]
            displacements.append(self._positive(raw))
        return Scored(torch.cat(logits, -1), torch.cat(displacements, -2))

    def _positive(self, raw: Tensor) -> Tensor:
        if self.config.normalizer == "sigmoid":
            return raw.sigmoid()
        return F.relu(raw) if self.config.normalizer == "relu" else raw.clamp(0.0, 1.0)


class LinearHead(nn.Module):
    """A logit by a linear layer."""

    def __init__(self, width: int, config: HeadConfig) -> None:
        """Random weights, drawn as the reference draws them."""
        super().__init__()
        self.output = nn.Linear(width, 1)
        if not self.output.weight.is_meta:
            nn.init.xavier_uniform_(self.output.weight)
            nn.init.constant_(self.output.bias, config.class_bias)

    def forward(self, levels: list[Tensor]) -> Scored:
        """Score the tokens (..., T, d) of the one level."""
        # Contiguous: what comes is a part of the sequence, see `TimeConv`.
        return Scored(self.output(levels[0].contiguous()).squeeze(-1), None)
