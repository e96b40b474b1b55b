"""`onlooker convert` on trees of UnLoc: what they do not tell, and what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onlooker.operators.localize.unloc.convert import to_reference
from onlooker.operators.localize.unloc.load import load_localizer
from onlooker.pipeline.cli.main import main

from .unloc_parts import FPN, LINEAR, SMALL, TOWERS, random_model, with_fusion

FRAMES = "num_frames=16"


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., int]:
    def call(tree: dict[str, Any], *config: str) -> int:
        np.savez(tmp_path / "tree.npz", **tree)
        told = [word for option in config for word in ("--config", option)]
        return main(["convert", str(tmp_path / "tree.npz"), str(tmp_path / "out"), "--force", *told])

    return call


@pytest.fixture
def refused(convert: Callable[..., int], capsys: Any, tmp_path: Path) -> Callable[..., str]:
    def call(tree: dict[str, Any], *config: str) -> str:
        capsys.readouterr()
        assert convert(tree, *config) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and "Traceback" not in said.err
        assert not (tmp_path / "out").exists()
        return str(said.err)

    return call


def test_the_arrays_tell_all_but_a_few_options(convert: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    """Class tokens tell the frames; a linear head needs nothing else."""
    assert convert(to_reference(random_model(TOWERS))) == 0
    said = capsys.readouterr().out
    assert 'self_attention_encoder_name="simple_pyramid"' in said and "downsample_strategy" not in said
    found = load_localizer(tmp_path / "out").model.config
    assert found == replace(TOWERS, head=replace(TOWERS.head, box_bias=0.0)), "a bias is known when it is loaded"
    assert convert(to_reference(random_model(LINEAR)), FRAMES) == 0


@pytest.mark.parametrize(
    "config",
    [
        with_fusion(FPN, downsample="avg_pool"),
        with_fusion(FPN, downsample="depthwise_conv"),
        with_fusion(positions="learned"),
        with_fusion(TOWERS, all_text_tokens=True, text_length=7),
        replace(TOWERS, freeze_image=True),
    ],
    ids=["fpn", "convolutions", "learned", "all text", "frozen"],
)
def test_options_have_the_names_of_the_reference(config: Any, convert: Callable[..., int], tmp_path: Path) -> None:
    model = random_model(config)
    names = {"depthwise_conv": "strided_depthwise_conv"}
    strategy = names.get(config.fusion.downsample, config.fusion.downsample)
    encoder = {
        "positional_embedding": config.fusion.positions,
        "downsample_strategy": strategy,
        "num_layers": 3,
        "feature_pyramid_config": {"feature_pyramid_levels": [0, 1, 2], "num_features_level0": 16},
    }
    fusion = {
        "use_all_text_tokens": config.fusion.all_text_tokens,
        "self_attention_encoder_name": config.fusion.kind,
        "self_attention_encoder_config": encoder,
    }
    head = {"init_regression_head_bias": 2.0, "num_conv_layers": 2}
    file = {
        "model": {
            "video_text_fusion_config": {"config": fusion},
            "head_config": {"moment_retrieval": {"config": head}},
            "video_tower_config": {"freeze": config.freeze_image, "encoder_config": {"classifier": "token"}},
        },
        "dataset_configs": {"num_classes": 1},
    }
    (tmp_path / "config.json").write_text(json.dumps(file))
    assert convert(to_reference(model), str(tmp_path / "config.json")) == 0
    assert load_localizer(tmp_path / "out").model.config == config


def test_what_cannot_be_is_told(refused: Callable[..., str], tmp_path: Path) -> None:
    tree, fpn = to_reference(random_model(SMALL)), "self_attention_encoder_name=fpn"
    assert "give num_frames" in refused(tree)
    assert "did you mean 'num_features_level0'" in refused(tree, FRAMES, "num_feature_level0=16")
    assert "give it, as in the configuration of its training" in refused(tree, FRAMES, fpn)
    assert "the tree has 3 levels" in refused(tree, FRAMES, fpn, "feature_pyramid_levels=[0,1]")
    assert "frames 18 must be a multiple of 4" in refused(tree, "num_frames=18")
    assert "lacks" in refused(tree, FRAMES, "positional_embedding=learned")
    assert "num_heads is 4, but the tree's is 2" in refused(tree, FRAMES, "self_attention_encoder_config.num_heads=4")
    assert "16 and 32 frames" in refused(to_reference(random_model(TOWERS)), "num_frames=32")
    assert "no head" in refused({k: v for k, v in tree.items() if "_head/" not in k}, FRAMES)
    both = tree | to_reference(random_model(replace(SMALL, task="temporal_localization")))
    assert "heads for moment_retrieval and temporal_localization" in refused(both, FRAMES)
    assert "unknown video_projection/biass" in refused(tree | {"video_projection/biass": np.zeros(3)}, FRAMES)
    (tmp_path / "config.json").write_text(json.dumps({"video_tower_config": {"modality_configs": {"rgb": 1}}}))
    assert "modality_configs" in refused(tree, FRAMES, str(tmp_path / "config.json"))
