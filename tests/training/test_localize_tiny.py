"""The recipes of the embedded localizers, at a small size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from onlooker.operators.localize.unloc.load import read_localizer, save_localizer
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.similarity import Similarity
from onlooker.training.localize_adapter import AdapterRecipe, fit_adapters
from onlooker.training.localize_scenes import SceneRecipe, SceneWindows
from onlooker.training.localize_tiny import SEGMENT, LocalizeTinyRecipe, new_localizer, train_on_bank
from onlooker.training.localize_trainer import LocalizeRecipe, LocalizeTrainer

from .localize_bank import small_bank

SMALL = LocalizeTinyRecipe(
    width=16,
    mlp_width=16,
    layers=1,
    levels=3,
    convs=1,
    adapter=8,
    steps=80,
    kept=(60, 80),
    windows=4,
    rate=4e-3,
    fitting=AdapterRecipe(steps=30, batch=30),
    scenes=SceneRecipe(frames=32, scene=(2.0, 6.0), blur=(0.0, 0.2)),
)


def loss(model: Unloc, recipe: LocalizeTinyRecipe) -> float:
    """On windows that training did not draw."""
    windows, rng = SceneWindows(small_bank(), recipe.scenes), np.random.default_rng(99)
    with torch.no_grad():
        return float(LocalizeTrainer(model, LocalizeRecipe()).loss(model, [windows(rng) for _ in range(12)]).total)


@pytest.mark.parametrize("recipe", [SMALL, dataclasses.replace(SMALL, task=SEGMENT.task)], ids=["moments", "segment"])
def test_training_helps(recipe: LocalizeTinyRecipe) -> None:
    bank = small_bank()
    steps: list[int] = []
    before = loss(new_localizer(bank, recipe), recipe)
    after = loss(train_on_bank(bank, recipe, lambda step, _: steps.append(step)), recipe)
    assert steps == list(range(1, recipe.steps + 1))
    assert after < 0.7 * before


def test_the_weights_depend_on_the_seed_alone() -> None:
    few = dataclasses.replace(SMALL, steps=3)
    first, again, other = (
        train_on_bank(small_bank(), dataclasses.replace(few, seed=seed)).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_saved_localizer_says_the_same(tmp_path: Path) -> None:
    model = train_on_bank(small_bank(), dataclasses.replace(SMALL, steps=3))
    save_localizer(tmp_path, model, tower="tiny", extra=SMALL.settings)
    loaded = read_localizer(tmp_path)
    assert loaded.settings["hop"] == 8
    video, text = torch.randn(2, 32, 24), torch.randn(2, 24)
    said, again = (each.score(each.project_video(video), each.project_texts(text)) for each in (model, loaded.model))
    torch.testing.assert_close(said.logits, again.logits)


def test_adapters_learn_what_the_tower_does_not_know() -> None:
    """Photographs and captions of a bank whose texts live in other directions than its images."""
    bank = small_bank(90)
    turned = dataclasses.replace(
        bank, captions=np.roll(bank.captions, 5, -1), class_texts=np.roll(bank.class_texts, 5, -1)
    )

    def found(similarity: Similarity) -> float:
        """Share of captions whose own photograph is the nearest."""
        with torch.no_grad():
            frames = similarity.frames(torch.from_numpy(turned.images[:, 0]))
            texts = similarity.texts(torch.from_numpy(turned.captions[:, 1]))
            return float(((texts @ frames.T).argmax(1) == torch.arange(len(frames))).float().mean())

    torch.manual_seed(0)
    similarity = Similarity(24, 16, 64)
    before = found(similarity)
    fit_adapters(similarity, turned, AdapterRecipe(steps=100, batch=90, rate=1e-2, blur=(0.0, 0.1)))
    assert found(similarity) > before + 0.4
    assert not any(weights.requires_grad for weights in similarity.frame_adapter.parameters())  # type: ignore[union-attr]


def test_similarity_is_told_in_standard_deviations() -> None:
    bank = small_bank(200)
    similarity = Similarity(24, 16, 0)
    similarity.calibrate(torch.from_numpy(bank.images).flatten(0, 1))
    frames = similarity.frames(torch.from_numpy(bank.images).flatten(0, 1))
    scores = similarity.texts(torch.randn(5, 24)) @ frames.T
    torch.testing.assert_close(scores.mean(1), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(scores.std(1), torch.ones(5), atol=1e-2, rtol=0)


def test_a_similarity_without_adapters_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="no adapters"):
        fit_adapters(Similarity(24, 16, 0), small_bank())
