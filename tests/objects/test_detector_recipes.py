"""The released configurations: sizes, and the learning rates of their parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from onlooker.operators.objects.densevoc.config import DetectorConfig
from onlooker.operators.objects.densevoc.detector import Detector
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig
from onlooker.operators.objects.densevoc.presets import PRESETS
from onlooker.training.objects.densevoc_recipes import DENSEVOC_RECIPES, layer_rates, parameter_groups

from .test_detector import BACKBONE, TINY

PUBLISHED = 207_013_578
TRACKER = 6_690_000 + 3_150_000


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_published_model(name: str) -> None:
    with torch.device("meta"):
        model = DenseVoc(PRESETS[name])
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (
        count == PUBLISHED if model.association is not None else PUBLISHED - count == pytest.approx(TRACKER, rel=0.01)
    )
    assert DenseVocConfig.from_dict(PRESETS[name].to_dict()) == PRESETS[name]


def test_recipes_start_from_each_other() -> None:
    assert set(DENSEVOC_RECIPES) == set(PRESETS) - {"densevoc_vidstg_videoeval"}
    for recipe in DENSEVOC_RECIPES.values():
        assert recipe.start == "clip" or recipe.start in DENSEVOC_RECIPES
        assert recipe.described <= recipe.regions or recipe.from_detections
    rate = DENSEVOC_RECIPES["densevoc_disjoint_pretraining"].rate
    told = [rate(step) for step in (125, 250, 80_000, 80_001, 87_500, 87_501)]
    assert told == pytest.approx([1e-4, 2e-4, 2e-4, 2e-5, 2e-5, 2e-6])
    assert DENSEVOC_RECIPES["densevoc_vidstg"].rate.decay_events == (10_000, 10_937)


def detector() -> Detector:
    config = DetectorConfig(
        replace(BACKBONE, num_layers=3), 8, proposals=replace(TINY.proposals, groups=4), roi=TINY.roi
    )
    return Detector(config)


def test_rates_fall_with_depth() -> None:
    rates = layer_rates(detector())
    assert rates["backbone.net.patch_embed.proj.weight"] == rates["backbone.net.pos_embed"] == pytest.approx(0.7**4)
    for block in range(3):
        assert rates[f"backbone.net.blocks.{block}.attn.rel_pos_h"] == pytest.approx(0.7 ** (3 - block))
    others = {rate for name, rate in rates.items() if "blocks" not in name and "embed" not in name}
    assert others == {1.0}


def test_groups_hold_every_parameter_once() -> None:
    model = detector()
    model.roi_heads.requires_grad_(False)
    groups = parameter_groups(model)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free = {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}
    assert all(
        name.endswith(("bias", "scale")) or "norm" in name or "ln_pre" in name or "bbox_tower.1" in name
        for name in free
    )
    assert "backbone.net.pos_embed" not in free and "backbone.net.blocks.0.norm1.weight" in free
    torch.optim.AdamW(groups, lr=1e-4)
