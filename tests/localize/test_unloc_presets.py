"""The eight configured models have the arrays of the reference's, every one by name and shape."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from onlooker.operators.localize.unloc.convert import reference_shapes
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.presets import PRESETS
from onlooker.operators.localize.unloc.reference import unloc_config
from onlooker.training.localize_schedules import UNLOC_SCHEDULES

TREES: dict[str, Any] = json.loads(gzip.decompress((Path(__file__).parent / "unloc_trees.json.gz").read_bytes()))
"""Shapes by path of the reference's models, made by its own initialisation; blocks that are alike are told once."""
LOGITS = {"highlight_detection": 3, "moment_retrieval": 3, "temporal_localization": 3, "action_segmentation": 1}


def told_once(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, shape in shapes.items():
        name = re.sub(r"(resblocks\.|encoderblock_)\d+", r"\1*", path)
        entry = found.setdefault(name, {"shape": list(shape), "blocks": 0})
        assert entry["shape"] == list(shape)
        entry["blocks"] += 1
    return found


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return reference_shapes(Unloc(PRESETS[name]))


def test_there_is_one_for_every_configuration() -> None:
    assert set(PRESETS) == set(TREES) == set(UNLOC_SCHEDULES)


@pytest.mark.parametrize("name", TREES)
def test_arrays(name: str) -> None:
    shapes = shapes_of(name)
    assert told_once(shapes) == TREES[name]["arrays"]
    assert sum(math.prod(shape) for shape in shapes.values()) == TREES[name]["total"]


@pytest.mark.parametrize("name", TREES)
def test_steps(name: str) -> None:
    steps = {"qvh_b": 270, "qvh_l": 270, "tal_l": 310, "coin_l": 512}
    assert PRESETS[name].steps == steps.get(name, 240)


@pytest.mark.parametrize("name", TREES)
def test_a_tree_tells_its_preset(name: str) -> None:
    """What the arrays do not tell is given as the configurations of the reference give it."""
    wanted = PRESETS[name]
    with torch.device("meta"):
        tree = {path: torch.empty(shape) for path, shape in shapes_of(name).items()}
    changes: dict[str, Any] = {"num_frames": wanted.frames}
    changes["init_classification_head_bias"] = changes["init_head_bias"] = wanted.head.class_bias
    changes["init_regression_head_bias"] = wanted.head.box_bias
    changes["video_tower_config"] = {"freeze": wanted.freeze_image}
    changes["text_tower_config"] = {"freeze": wanted.freeze_text}
    if wanted.fusion.kind == "fpn":
        changes |= {"self_attention_encoder_name": "fpn", "feature_pyramid_levels": [2, 3, 4, 5]}
    found = unloc_config(tree, None, changes).config
    ours, theirs = found.to_dict(), wanted.to_dict()
    if wanted.head.kind == "linear":
        ours["fusion"].pop("stride"), theirs["fusion"].pop("stride")  # of one level
    assert ours == theirs
