"""Configurations read off the published trees, of which only names and shapes are known."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from onlooker.operators.caption.convert_config import git_config
from onlooker.operators.caption.dense_config import DenseConfig, ParagraphConfig
from onlooker.operators.convert.read import ReferenceTreeError

PUBLISHED = Path(__file__).parents[1] / "goldens" / "streaming_dvc" / "param_trees_git.json"
PIECES = [f"word{i}" for i in range(30522)]
PIECES[101:103] = ["[CLS]", "[SEP]"]


def tree(name):
    return {path: torch.empty(shape, device="meta") for path, shape in json.loads(PUBLISHED.read_text())[name].items()}


@pytest.mark.parametrize(
    ("name", "default"),
    [("git_anet_streaming_input_output", DenseConfig()), ("git_anet_paragraph_streaming_input", ParagraphConfig())],
)
def test_published_trees_are_the_published_models(name, default):
    dense = isinstance(default, DenseConfig)
    config, assumed = git_config(tree(name), dense, PIECES, None, {})
    assert config == dataclasses.replace(default, encoder=dataclasses.replace(default.encoder, frozen=True))
    assert assumed["streaming_buffer_size"] == 514 and "vocab_size" not in assumed
    changed, _ = git_config(tree(name), dense, PIECES, None, {"decode_beam_size": 2, "backbone_args": {"num_heads": 8}})
    assert changed.search.beam == 2 and changed.encoder.vision.num_heads == 8
    assert changed.encoder.vision.num_layers == config.encoder.vision.num_layers


@pytest.mark.parametrize("gone", ["image_encoder/pos_embed", "textual/embedding/positions/embedding"])
def test_without_the_array_that_tells_a_size(gone):
    arrays = tree("git_anet_streaming_input_output")
    del arrays[gone]
    if gone.endswith("pos_embed"):  # a trunk without positions is one that the reference can build
        assert not git_config(arrays, True, PIECES, None, {}).config.encoder.vision.positions
    else:
        with pytest.raises(ReferenceTreeError, match=f"lacks {gone}"):
            git_config(arrays, True, PIECES, None, {})
