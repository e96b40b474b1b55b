"""How the released models of Dense VOC were trained: data, losses, learning rates (Zhou et al. 2023).

The first training is disjoint: no data set has all labels, so each step draws one of four and takes the losses that its
labels allow. What is fine-tuned afterwards has boxes, tracks and captions, if not for every object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from onlooker.training.schedules import LearningRate, Schedule

__all__ = ["DENSEVOC_RECIPES", "DenseVocRecipe", "Source", "layer_rates", "parameter_groups"]

_BLOCK = re.compile(r"\bbackbone\.net\.blocks\.(\d+)\.")
_STEM = re.compile(r"\bbackbone\.net\.(patch_embed\.|pos_embed$)")

LossName = Literal["detection", "association", "regions", "tracks", "video"]


@dataclass(frozen=True)
class Source:
    """A data set of a recipe.

    Attributes:
        name: of the data set.
        losses: what its labels allow: `detection`, `association`, captions of `regions`, of `tracks`, of the `video`.
        frames: of a sample.
        stride: at most so many frames lie from one of them to the next.
        made: frames are `filmed`, `views` of one photograph between two croppings, or `independent` photographs.
    """

    name: str
    losses: tuple[LossName, ...]
    frames: int
    stride: int = 1
    made: Literal["filmed", "views", "independent"] = "filmed"


@dataclass(frozen=True)
class DenseVocRecipe(Schedule):
    """A training run. All have AdamW, see `parameter_groups`, and pictures of 384 pixels.

    Attributes:
        steps: number of training steps.
        rate: of all that is not in the ViT's blocks.
        batch: samples of a step.
        start: name of the recipe that made the first weights, or `clip`.
        sources: each step draws one of them, all as likely.
        true_boxes: at most so many of a picture.
        regions: drawn from a picture for the box heads.
        described: of these, the first so many are captioned and associated.
        from_detections: instead of regions, the detections made of them are.
        described_overlap: with the true box whose caption a region learns.
        followed_overlap: with the true box whose track a region belongs to.
    """

    batch: int = 16
    start: str = "clip"
    sources: tuple[Source, ...] = ()
    true_boxes: int = 8
    regions: int = 32
    described: int = 8
    from_detections: bool = True
    described_overlap: float = 0.6
    followed_overlap: float = 0.6


def _rate(base: float, steps: int) -> LearningRate:
    """A tenth after 8/9 of the steps, a hundredth after 35/36."""
    return LearningRate(base, 250, (steps * 8 // 9, steps * 35 // 36), (0.1, 0.01))


_DISJOINT = (
    Source("COCO", ("detection",), 8, made="independent"),
    Source("Visual Genome", ("regions",), 8, made="independent"),
    Source("SMiT", ("video",), 8, stride=4),
    Source("COCO", ("detection", "association"), 8, made="views"),
)
_ALL: tuple[LossName, ...] = ("detection", "association", "regions", "tracks")
_VIDSTG = DenseVocRecipe(
    11_250, _rate(1e-5, 11_250), start="densevoc_disjoint_pretraining", sources=(Source("VidSTG", _ALL, 16),)
)

DENSEVOC_RECIPES = {
    "grit_vg_384": DenseVocRecipe(
        45_000,
        _rate(1e-4, 45_000),
        batch=64,
        sources=(Source("Visual Genome", ("detection", "regions"), 1, made="independent"),),
        true_boxes=100,
        regions=512,
        described=64,
        from_detections=False,
    ),
    "densevoc_disjoint_pretraining": DenseVocRecipe(
        90_000,
        _rate(2e-4, 90_000),
        batch=32,
        sources=_DISJOINT,
        true_boxes=64,
        regions=128,
        described=32,
        from_detections=False,
    ),
    "densevoc_vidstg": _VIDSTG,
    "densevoc_vidstg_ftgrit_hard_aggregation": replace(_VIDSTG, start="grit_vg_384"),
    "densevoc_vidstg_ftgrit_soft_aggregation": replace(_VIDSTG, start="grit_vg_384"),
    "densevoc_vln": replace(_VIDSTG, sources=(Source("VLN", _ALL, 3),), described=128, followed_overlap=0.4),
}
"""By the names of `onlooker.operators.objects.densevoc.presets`."""


def layer_rates(model: nn.Module, decay: float = 0.7) -> dict[str, float]:
    """Factor of the learning rate of every parameter: the deeper in the ViT, the smaller.

    Patches and positions have `decay` to the power of the number of blocks and 1, block i to the power of the blocks
    from it on, and all else, also the ViT's first norm, has 1.

    Args:
        model: a `DenseVoc` or a `Detector`.
        decay: from one layer to the one below.
    """
    blocks = [int(match[1]) for name, _ in model.named_parameters() if (match := _BLOCK.search(name))]
    depth = max(blocks, default=-1) + 2
    rates = {}
    for name, _ in model.named_parameters():
        block = _BLOCK.search(name)
        layer = 0 if _STEM.search(name) else int(block[1]) + 1 if block else depth
        rates[name] = decay ** (depth - layer)
    return rates


def parameter_groups(model: nn.Module, weight_decay: float = 0.05, decay: float = 0.7) -> list[dict[str, Any]]:
    """Groups for AdamW of a model's trained parameters; `rate` is the factor of a group's learning rate.

    Kernels, embeddings and tables of positions decay; biases and factors, of norms and levels, do not.

    Args:
        model: a `DenseVoc` or a `Detector`.
        weight_decay: of those that decay.
        decay: see `layer_rates`.
    """
    rates = layer_rates(model, decay)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for prefix, module in model.named_modules():
        norm = isinstance(module, nn.LayerNorm | nn.GroupNorm)
        for leaf, parameter in module.named_parameters(prefix, recurse=False):
            if not parameter.requires_grad:
                continue
            own = leaf.rpartition(".")[2]
            shrinks = 0.0 if norm or own in ("bias", "scale") else weight_decay
            key = (rates[leaf], shrinks)
            group = groups.setdefault(key, {"params": [], "weight_decay": shrinks, "rate": rates[leaf]})
            group["params"].append(parameter)
    return list(groups.values())
