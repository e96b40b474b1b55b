"""``onlooker convert``: trees of PixelLLM become folders that give the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onlooker.operators.objects.pixelllm.convert import to_reference
from onlooker.operators.objects.pixelllm.load import load_pixelllm
from onlooker.operators.objects.pixelllm.model import PixelLlm
from onlooker.pipeline.cli.main import main

from .test_pixelllm_model import WORDS, small_model

_TOLD = (
    "git_backbone_args.num_heads=2",
    "text_decoder_args.num_heads=4",
    "git_preprocess_args.image_size=[32,32]",
    "sam_preprocess_args.image_size=[48,48]",
    "begin_token_id=2",
    "end_token_id=3",
)


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., int]:
    """Runs the command on a tree; what it writes is `out`."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")

    def run(tree: dict[str, Any], *more: str, told: tuple[str, ...] = _TOLD) -> int:
        np.savez(tmp_path / "tree.npz", **tree)
        options = [part for one in told for part in ("--config", one)]
        return main(["convert", str(tmp_path / "tree.npz"), str(tmp_path / "out"), *options, *more])

    return run


@pytest.fixture(scope="module")
def model() -> PixelLlm:
    return small_model()


@torch.no_grad()
def test_a_checkpoint_becomes_a_folder(
    model: PixelLlm, convert: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    assert convert(to_reference(model), "--vocab", str(tmp_path / "vocab.txt")) == 0
    said = capsys.readouterr().out
    assert said.startswith("pixelllm: ") and 'point_output_ignore="^end-1"' in said and "begin_token_id" not in said
    stored = load_pixelllm(tmp_path / "out")
    assert stored.pieces == WORDS and stored.tower == ""
    images, boxes = torch.rand(1, 48, 48, 3) * 255, torch.tensor([[[0.0, 0.0, 48.0, 48.0]]])
    tokens = torch.tensor([[[2, 4, 7, 3]]])
    answers = []
    for one in (model, stored.model):
        features = one.encode_images(images)
        seen = one.see(features, boxes)
        found, words = one.refer(features, seen, tokens)
        answers.append([seen, found, *one.masks(features, found, seen, words), one.caption(seen, 8).tokens])
    for own, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(own, theirs)


def test_what_cannot_be_is_told(model: PixelLlm, convert: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    words = ["--vocab", str(tmp_path / "vocab.txt")]
    tree = to_reference(model)
    without = {path: array for path, array in tree.items() if path != "point_predictor/mlp/layers.1/bias"}
    unknown = tree | {"box_decoder/x": np.zeros(1, np.float32)}
    for given, more, message in (
        (tree, [], "needs its words"),
        (without, words, "lacks point_predictor/mlp/layers.1/bias"),
        (unknown, words, "has unknown box_decoder/x"),
        (tree, [*words, "--config", "prompt_fuse_fn=thin"], "neither 'sparse' nor 'dense'"),
    ):
        capsys.readouterr()
        assert convert(given, *more) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and message in said.err
        assert not (tmp_path / "out").exists()
