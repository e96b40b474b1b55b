"""The detector's golden files: `<root>/dense_voc/<kind>*.npz`, and parts of ours with a part's weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onlooker.operators.objects.densevoc.centernet import ProposalMaps
from onlooker.operators.objects.densevoc.config import BackboneConfig, RoiConfig
from onlooker.operators.objects.densevoc.convert import load_reference
from onlooker.operators.objects.densevoc.roi_align import roi_align
from onlooker.operators.objects.densevoc.roi_heads import Pooling, RoiHeads

from .goldens import Case, find_files, parametrize_with, require

FAMILY = "dense_voc"


def parametrize_files(metafunc: Any, kind: str) -> None:
    """Give a test every file whose name begins with `kind`; without any, None, on which it fails."""
    parametrize_with(metafunc, kind, partial(find_files, FAMILY, kind))


def read(file: Case | None) -> dict[str, Any]:
    """The arrays of a file; fails where there is none."""
    return require(file, "the detector").arrays


def below(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arrays whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def tensor(array: Any) -> Tensor:
    """Floats as float32, integers as int64."""
    return torch.from_numpy(np.array(array, np.int64 if array.dtype.kind in "iu" else np.float32))


def channels_first(array: Any) -> Tensor:
    """(B, h, w, C) -> (B, C, h, w)."""
    return tensor(array).movedim(-1, 1).contiguous()


def by_number(arrays: Mapping[str, Any], prefix: str) -> list[Any]:
    """Arrays named `<prefix><number>`, by their number."""
    found = {int(rest): array for rest, array in below(arrays, prefix).items() if rest.isdigit()}
    return [found[number] for number in sorted(found)]


def load(module: nn.Module, part: str, arrays: Mapping[str, Any]) -> None:
    """Put the arrays `p:<path>` of a part of the detector into a module of ours, as a whole model is loaded."""
    load_reference(module, {f"{part}/{path}": array for path, array in below(arrays, "p:").items()}, part)


def assert_near(actual: Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal shapes; values within `tolerance`, absolute for small ones and relative for large ones; NaN where NaN."""
    assert tuple(actual.shape) == tuple(expected.shape)
    torch.testing.assert_close(actual.detach(), tensor(expected), atol=tolerance, rtol=tolerance, equal_nan=True)


def proposal_maps(arrays: Mapping[str, Any]) -> ProposalMaps:
    """The stored maps of all strides."""
    strides = arrays["strides"].tolist()
    heatmaps = [channels_first(arrays[f"heatmap_stride{stride}"]) for stride in strides]
    return ProposalMaps(heatmaps, [channels_first(arrays[f"box_reg_stride{stride}"]) for stride in strides])


def head_config(arrays: Mapping[str, Any], channels: int, *, stem: str = "p:", **more: Any) -> RoiConfig:
    """Of box heads with these parameters."""
    kernels = [arrays[f"{stem}fc{number}/kernel"] for number in range(1, 9) if f"{stem}fc{number}/kernel" in arrays]
    return RoiConfig(
        num_classes=arrays[f"{stem}cls_score/bias"].shape[0] - 1,
        widths=tuple(kernel.shape[1] for kernel in kernels),
        resolution=math.isqrt(kernels[0].shape[0] // channels),
        **more,
    )


def cascades(arrays: Mapping[str, Any]) -> list[int]:
    """How many stages the stored box heads have, `roi_heads<stages>/`."""
    found = sorted({int(match[1]) for name in arrays if (match := re.match(r"roi_heads(\d+)/", name))})
    assert found, "no box heads were compared"
    return found


def roi_heads(own: Mapping[str, Any], shared: Mapping[str, Any], stages: int) -> tuple[RoiHeads, Pooling]:
    """Box heads with their weights, and what pools for them from the stored maps, `feature_level<log2 of stride>`."""
    numbers = sorted(int(name) for name in below(shared, "feature_level"))
    levels = [channels_first(shared[f"feature_level{number}"]) for number in numbers]
    config = head_config(
        own,
        levels[0].shape[1],
        stem="p:box_head.0/",
        match_thresholds=(0.6, 0.7, 0.8)[:stages],
        detections=own["detection_boxes"].shape[1],
    )
    heads = RoiHeads(config, levels[0].shape[1])
    load(heads, "roi_heads", own)
    return heads, lambda boxes, size: roi_align(levels, boxes, [2**number for number in numbers], size)


def backbone_config(arrays: Mapping[str, Any]) -> BackboneConfig:
    """Of the stored backbone: two heads, windows in the blocks 0 and 2 (the files' README)."""
    depth = len([name for name in arrays if name.startswith("p:net/blocks.") and name.endswith("/norm1/scale")])
    width, inner = arrays["p:net/blocks.0/mlp/fc1/kernel"].shape
    patch, window = int(arrays["patch_size"]), int(arrays["window_size"])
    sides = [(len(arrays[f"p:net/blocks.{block}/attn/rel_pos_h"]) + 1) // 2 for block in range(depth)]
    return BackboneConfig(
        image_size=max(sides) * patch,
        patch_size=patch,
        width=width,
        num_layers=depth,
        num_heads=2,
        mlp_ratio=inner / width,
        window_size=window,
        window_blocks=tuple(block for block in (0, 2) if block < depth and sides[block] == window),
        pretrain_size=math.isqrt(arrays["p:net/pos_embed"].shape[1] - 1) * patch,
    )
