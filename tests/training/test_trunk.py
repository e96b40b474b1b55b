"""Fine-tuning of the trunk's late blocks, on a random trunk and photographs of noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.caption.wordpiece import SPECIAL, WordPiece
from onlooker.training.captions import Batches, CaptionerRecipe, Split
from onlooker.training.features import TRUNK
from onlooker.training.tower import Heads
from onlooker.training.trunk import EARLY_SHAPE, FIRST_LATE, LateBlocks, TrunkData, TrunkRecipe, Tuner

PHOTOGRAPHS, VIEWS = 24, 2
WORDS = [f"word{index}" for index in range(PHOTOGRAPHS)]
RECIPE = TrunkRecipe(epochs=12, batch=12, captioned=12, queue=24, rate=1e-3, head_rate=3e-3, caption_rate=2e-2)


def random_trunk() -> Any:
    torch.manual_seed(0)
    return timm.create_model(TRUNK, pretrained=False, num_classes=1000).eval().requires_grad_(False)


def make_tuner(recipe: TrunkRecipe = RECIPE, *, shuffled: bool = False) -> Tuner:
    """Each photograph's early activations are a pattern of its own under noise, its sentences a direction."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(PHOTOGRAPHS, *EARLY_SHAPE))
    early = [(patterns + 0.3 * rng.normal(size=patterns.shape)).astype(np.float16) for _ in range(VIEWS)]
    torch.manual_seed(1)
    sentences = torch.randn(PHOTOGRAPHS, 1, 384) + 0.1 * torch.randn(PHOTOGRAPHS, 5, 384)
    clip = torch.nn.functional.normalize(torch.randn(PHOTOGRAPHS, 512), dim=-1)
    clip[PHOTOGRAPHS // 2 :] = 0
    vocabulary = WordPiece([*SPECIAL, *WORDS])
    captions = [[word] * 5 for word in WORDS]
    nothing = np.zeros((PHOTOGRAPHS, VIEWS, 1, 1), np.float16)
    split = Split(nothing, np.ones((PHOTOGRAPHS, VIEWS), bool), captions)
    batches = Batches(split, vocabulary, CaptionerRecipe(prefix_share=0.5))
    decoder = GitDecoder(
        GitConfig(
            vocab_size=len(vocabulary), visual_width=1280, hidden_size=32, num_heads=2, num_layers=1, ffn_size=64,
            max_positions=24, dropout=0.0, begin_token=vocabulary.begin, end_token=vocabulary.end,
        )
    )  # fmt: skip
    trunk = random_trunk()
    with torch.no_grad():
        pooled = torch.stack([LateBlocks(trunk)(torch.from_numpy(e).float()).mean(1) for e in early], 1)
    if shuffled:
        sentences = sentences[torch.randperm(PHOTOGRAPHS)]
    return Tuner(TrunkData(early, pooled, sentences, clip, batches), trunk, Heads(0.0), decoder, recipe)


def run(tuner: Tuner) -> list[dict[str, float]]:
    return [terms for _ in range(tuner.recipe.epochs) for terms in tuner.epoch()]


@pytest.fixture(scope="module")
def tuned() -> tuple[Tuner, list[dict[str, float]]]:
    tuner = make_tuner()
    return tuner, run(tuner)


def test_late_blocks_behind_early_ones_are_the_trunk() -> None:
    trunk = random_trunk()
    images = torch.randn(2, 3, 224, 224)
    hidden = trunk.bn1(trunk.conv_stem(images))
    for block in trunk.blocks[:FIRST_LATE]:
        hidden = block(hidden)
    assert hidden.shape[1:] == EARLY_SHAPE
    grid = trunk.forward_features(images).flatten(2).transpose(1, 2)
    assert torch.equal(LateBlocks(trunk)(hidden), grid)


def test_all_four_terms_are_learnt(tuned: tuple[Tuner, list[dict[str, float]]]) -> None:
    _, steps = tuned
    for name in ("pairs", "caption", "clip"):
        assert np.mean([s[name] for s in steps[-2:]]) < 0.9 * np.mean([s[name] for s in steps[:2]]), name
    free = make_tuner(replace(RECIPE, memory=0.0))
    assert steps[-1]["memory"] < run(free)[-1]["memory"]


def test_sentences_find_unseen_views_and_the_shuffled_twin_does_not(
    tuned: tuple[Tuner, list[dict[str, float]]],
) -> None:
    tuner, _ = tuned
    rng = np.random.default_rng(7)
    view = (tuner.train.early[0] + 0.1 * rng.normal(size=(PHOTOGRAPHS, *EARLY_SHAPE))).astype(np.float16)
    sentences = tuner.train.sentences
    assert tuner.evaluate(view, sentences)[1].text_to_image[0] > 0.5
    twin = make_tuner(shuffled=True)
    run(twin)
    assert twin.evaluate(view, sentences)[1].text_to_image[0] < 0.3


def test_statistics_stay_and_what_is_saved_fits_the_trunk(
    tuned: tuple[Tuner, list[dict[str, float]]], tmp_path: Path
) -> None:
    tuner, _ = tuned
    tuner.save(tmp_path / "trunk.safetensors")
    changed, trunk = load_file(tmp_path / "trunk.safetensors"), random_trunk()
    before = dict(trunk.state_dict())
    assert changed.keys() <= before.keys()
    statistics = [name for name in changed if "running" in name]
    assert statistics and all(torch.equal(changed[name], before[name]) for name in statistics)
    assert not torch.equal(changed["conv_head.weight"], before["conv_head.weight"])
    trunk.load_state_dict(changed, strict=False)
    early = tuner.train.early[0][:3]
    assert torch.allclose(LateBlocks(trunk)(torch.from_numpy(early).float()), tuner.tokens(early), rtol=1e-3, atol=1e-3)


def test_a_seed_gives_the_same_bits() -> None:
    short = replace(RECIPE, epochs=1)
    first, again, other = make_tuner(short), make_tuner(short), make_tuner(replace(short, seed=1))
    for tuner in (first, again, other):
        run(tuner)
    states = [tuner.average.state_dict() for tuner in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
