"""Small UnLoc models of all kinds, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from onlooker.operators.localize.unloc.config import (
    FusionConfig,
    HeadConfig,
    ImageTowerConfig,
    TextTowerConfig,
    UnlocConfig,
)
from onlooker.operators.localize.unloc.model import Unloc

FUSION = FusionConfig(width=16, heads=2, mlp_width=32, layers=3, levels=3)
SMALL = UnlocConfig(frames=16, video_width=12, text_width=10, fusion=FUSION, head=HeadConfig(convs=2))
"""Moment retrieval on features of another tower."""
TOWERS = replace(
    SMALL,
    image=ImageTowerConfig(width=12, layers=2, heads=2, patch=4, patches=6),
    text=TextTowerConfig(vocabulary=40, width=10, layers=2, heads=2, length=7),
)
"""The same with towers of its own; frames of 8x12 or 12x8 pixels."""


def with_fusion(config: UnlocConfig = SMALL, **changes: Any) -> UnlocConfig:
    return replace(config, fusion=replace(config.fusion, **changes))


FPN = with_fusion(kind="fpn", pyramid_blocks=(0, 1, 2))
LINEAR = replace(with_fusion(kind="transformer", levels=1), task="action_segmentation", head=HeadConfig(kind="linear"))


def random_model(config: UnlocConfig, seed: int = 0) -> Unloc:
    """Every parameter moved a little, so that no bias or scale is trivial."""
    torch.manual_seed(seed)
    model = Unloc(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()
