"""The object model that comes with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from onlooker.operators.objects import densevoc
from onlooker.operators.objects.densevoc.boxes import pairwise_iou
from onlooker.operators.objects.densevoc.load import ObjectModel, load_object_model
from onlooker.operators.tower import load_tower
from onlooker.training.objects.tiny import TinyObjectsRecipe

SIZE = (224, 224)


@pytest.fixture(scope="module")
def tiny() -> ObjectModel:
    return load_object_model("tiny")


def figure(left: int | None, top: int = 60) -> np.ndarray:
    """A man in red and blue on a lawn, who fills a box of 50x120 pixels; None = the lawn."""
    grain = np.random.default_rng(0).normal(0, 6, (224, 224, 1))
    picture = Image.fromarray((np.array([90, 140, 70]) + grain).clip(0, 255).astype(np.uint8))
    if left is not None:
        draw = ImageDraw.Draw(picture)
        draw.ellipse((left + 14, top, left + 36, top + 26), fill=(215, 170, 140))
        draw.rounded_rectangle((left, top + 26, left + 50, top + 74), 10, fill=(190, 30, 40))
        draw.rectangle((left + 8, top + 72, left + 23, top + 120), fill=(40, 50, 110))
        draw.rectangle((left + 27, top + 72, left + 42, top + 120), fill=(40, 50, 110))
    return np.asarray(picture)


def levels(tiny: ObjectModel, *frames: np.ndarray) -> list[torch.Tensor]:
    maps = load_tower(tiny.tower, None, "image").encode_frames(np.stack(frames), len(frames), maps=True).maps
    return tiny.model.levels(maps)


def test_it_is_small_and_what_the_recipe_makes(tiny: ObjectModel) -> None:
    folder = Path(densevoc.__file__).parents[1] / "weights" / "tiny"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_500_000
    assert (folder / "MODEL_CARD.md").is_file()
    made = TinyObjectsRecipe().config()
    assert tiny.model.config.detector == made.detector and tiny.model.config.association == made.association


@torch.no_grad()
def test_it_finds_a_figure_where_it_stands_and_none_on_a_lawn(tiny: ObjectModel) -> None:
    found = tiny.model.detector.detect(levels(tiny, figure(30), figure(120), figure(None)), SIZE)
    told = found.scores >= 0.25  # it never saw a drawing, and is less sure of one than of a photograph
    for frame, left in ((0, 30), (1, 120)):
        truth = torch.tensor([[left, 60.0, left + 50, 180]])
        assert float(pairwise_iou(truth, found.boxes[frame][told[frame]]).max()) > 0.6
    assert float(found.scores[2].max()) < 0.1


@torch.no_grad()
def test_it_tells_that_a_figure_is_the_same(tiny: ObjectModel) -> None:
    """Far away from where it was, beside another that stands where the first had been."""
    first, second = figure(20).copy(), figure(130).copy()
    second[:, :90] = np.asarray(Image.fromarray(figure(20)[:, :90]).convert("L"))[..., None] // 2  # a dark one
    seen = levels(tiny, first, second)
    boxes = torch.tensor([[[20.0, 60, 70, 180], [0, 0, 1, 1]], [[130, 60, 180, 180], [20, 60, 70, 180]]])
    features = tiny.model.detector.pool(seen, boxes, tiny.model.config.tracking.resolution)
    assert tiny.model.association is not None
    same, other = tiny.model.association.scores(features.flatten(0, 1)[[0, 2, 3]])[0, 1:].tolist()
    assert same > tiny.model.config.tracking.threshold > 0
    assert same > other
