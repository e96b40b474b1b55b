"""The embedded localizers: `tiny` finds moments, `tiny-segment` tells which class each moment of a stream shows.

Both read features of the embedded tower and learn on windows drawn from those of captioned photographs
(`localize_scenes`); no video is needed. First the similarity of frames and texts is fitted (`localize_adapter`), then
the fusion is trained around it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onlooker.operators.localize.unloc.config import FusionConfig, HeadConfig, UnlocConfig
from onlooker.operators.localize.unloc.heads import LinearHead
from onlooker.operators.localize.unloc.load import save_localizer
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.tower import load_tower
from onlooker.operators.tower.loading import EMBEDDED
from onlooker.training.localize_adapter import AdapterRecipe, fit_adapters
from onlooker.training.localize_loss import LocalizeLoss
from onlooker.training.localize_scenes import TEMPLATES, Bank, SceneRecipe, SceneWindows, open_bank
from onlooker.training.localize_trainer import LocalizeRecipe, LocalizeTrainer
from onlooker.training.schedules import LearningRate
from onlooker.training.tower import Heads

__all__ = ["SEGMENT", "LocalizeTinyRecipe", "new_localizer", "tower_bank", "train_localize_tiny", "train_on_bank"]

Report = Callable[[int, LocalizeLoss], None]

_TOWER = "tiny"


@dataclass(frozen=True)
class LocalizeTinyRecipe:
    """Everything that decides the weights, beside the data; the defaults are those of `tiny`.

    Attributes:
        task: moments with boundaries, or a logit for every sample.
        width, heads, mlp_width, layers: of the fusion.
        levels: of its pyramid; windows of a stream are 2^(levels - 1) samples apart, or a multiple.
        convs: of the head.
        adapter: hidden width of what fits the tower's similarity.
        windows: per update.
        rate: learning rate after a warm-up of 100 steps; it falls along half a cosine.
        fitting: how the similarity is fitted.
        scenes: how windows are drawn.
        kept: steps whose running averages of the weights are averaged in turn; the last step if there is none. Windows
            are drawn, not filmed: after long training their borders are found better and those of videos worse.
        widen: seconds by which moments are told to begin earlier and end later than training says: borders of rendered
            videos, mixed pictures, look a little less like either side than those that windows are drawn with.
        offset: added to the logits of a segmentation in the end. Training asks for what is there more often than
            streams show it, so that background, all logits at most 0, would be told too seldom.
        settings: what goes with the weights for use on streams; thresholds were chosen on rendered videos of the dev
            split (`benchmarks/localization.py`).
    """

    seed: int = 0
    task: str = "moment_retrieval"
    width: int = 96
    heads: int = 4
    mlp_width: int = 192
    layers: int = 3
    levels: int = 4
    convs: int = 2
    adapter: int = 256
    steps: int = 1900
    windows: int = 12
    rate: float = 1.5e-3
    fitting: AdapterRecipe = field(default_factory=AdapterRecipe)
    scenes: SceneRecipe = field(default_factory=SceneRecipe)
    kept: tuple[int, ...] = (750, 1900)
    widen: float = 0.06
    offset: float = 0.0
    settings: dict[str, Any] = field(
        default_factory=lambda: {"hop": 8, "settle": 4.0, "on": 0.45, "off": 0.3, "templates": list(TEMPLATES)}
    )

    def config(self, features: int) -> UnlocConfig:
        """Of a model that reads features of width E."""
        linear = self.task == "action_segmentation"
        return UnlocConfig(
            task="action_segmentation" if linear else "moment_retrieval",
            frames=self.scenes.frames,
            video_width=features,
            text_width=features,
            fusion=FusionConfig(
                width=self.width,
                heads=self.heads,
                mlp_width=self.mlp_width,
                layers=self.layers,
                kind="transformer" if linear else "simple_pyramid",
                levels=1 if linear else self.levels,
            ),
            head=HeadConfig("linear" if linear else "localization", convs=self.convs, class_bias=-2.0),
            projection_bias=True,
            similarity=True,
            adapter=self.adapter,
        )


SEGMENT = LocalizeTinyRecipe(
    task="action_segmentation",
    steps=500,
    kept=(),
    offset=-1.4,
    scenes=SceneRecipe(of_class=0.5, positives=2, hard=1, classes=4),
    settings={"hop": 8, "settle": 4.0, "on": 0.5, "off": 0.3, "templates": list(TEMPLATES)},
)
"""Of `tiny-segment`."""


def train_localize_tiny(
    data: Path,
    cache: Path,
    out: Path,
    recipe: LocalizeTinyRecipe | None = None,
    report: Report | None = None,
) -> Unloc:
    """Train a localizer for the embedded tower and write the folder that `load_localizer` reads.

    Args:
        data: the data folder (see `onlooker.training.flickr`).
        cache: a token cache that is filled (see `onlooker.training.features`), of the embedded tower's trunk.
        out: folder for weights and config.
        recipe: what decides the weights.
        report: is told the number and the loss of every step.

    Raises:
        FileNotFoundError: data or cache lack a file.
        ValueError: the cache is not complete.
    """
    recipe = recipe or LocalizeTinyRecipe()
    model = train_on_bank(tower_bank(data, cache, "train"), recipe, report)
    settings = {"fps": 1 / recipe.scenes.seconds, **recipe.settings}
    save_localizer(out, model, tower=_TOWER, extra=settings, dtype=torch.float16)
    return model


def tower_bank(data: Path, cache: Path, split: str) -> Bank:
    """The embedded tower's features of a split, from a token cache."""
    boxes = json.loads((data / "flickr8k" / "pseudo_boxes.json").read_text(encoding="utf-8"))["boxes"]
    classes = sorted({row[0] for rows in boxes.values() for row in rows})
    texts = [template.format(name) for name in classes for template in TEMPLATES]
    encoded = load_tower(_TOWER, None, "text").encode_texts(texts)
    class_texts = encoded.numpy().reshape(len(classes), len(TEMPLATES), -1)
    heads = Heads.of_tower(EMBEDDED[_TOWER], 0.0).eval()
    return open_bank(cache, data, split, heads, class_texts, classes)


def train_on_bank(bank: Bank, recipe: LocalizeTinyRecipe, report: Report | None = None) -> Unloc:
    """A trained localizer, in eval mode."""
    model = new_localizer(bank, recipe)
    training = LocalizeRecipe(
        seed=recipe.seed,
        steps=recipe.steps,
        windows=recipe.windows,
        rate=LearningRate(recipe.rate, min(100, recipe.steps - 1), cosine_steps=recipe.steps),
    )
    trainer = LocalizeTrainer(model, training)
    kept: list[dict[str, torch.Tensor]] = []

    def told(step: int, loss: LocalizeLoss) -> None:
        if step in recipe.kept:
            kept.append({name: weights.clone() for name, weights in trainer.average.state_dict().items()})
        if report is not None:
            report(step, loss)

    trainer.run(SceneWindows(bank, recipe.scenes), told)
    if kept:
        trainer.average.load_state_dict({name: sum(each[name] for each in kept) / len(kept) for name in kept[0]})
    _calibrate(trainer.average, recipe)
    return trainer.average


def new_localizer(bank: Bank, recipe: LocalizeTinyRecipe) -> Unloc:
    """A localizer whose similarity is fitted to a bank and whose fusion is new."""
    torch.manual_seed(recipe.seed)
    model = Unloc(recipe.config(bank.images.shape[-1]))
    assert model.similarity is not None
    if recipe.adapter:
        fit_adapters(model.similarity, bank, replace(recipe.fitting, seed=recipe.seed))
    else:
        model.similarity.calibrate(torch.from_numpy(bank.images).flatten(0, 1))
    _share_basis(model, bank)
    return model


@torch.no_grad()
def _calibrate(model: Unloc, recipe: LocalizeTinyRecipe) -> None:
    """Add `widen` to all displacements, which are in strides of their level, or `offset` to the logits."""
    if isinstance(model.head, LinearHead):
        model.head.output.bias.add_(recipe.offset)
    elif model.head.shifts is not None:
        strides = model.config.fusion.stride ** torch.arange(len(model.head.shifts))
        model.head.shifts.add_(recipe.widen / recipe.scenes.seconds / strides)


@torch.no_grad()
def _share_basis(model: Unloc, bank: Bank) -> None:
    """Begin with projections of frames and texts to the same directions, and with attention to what is alike.

    The directions are those in which photographs and their captions vary together. In a random start, tokens of a frame
    and of a sentence about it have nothing in common, and training is slow to find what.
    """
    images, captions = bank.images[:, 0], bank.captions[:, 0]
    seen, said = (rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (images, captions))
    left, _, right = np.linalg.svd((seen - seen.mean(0)).T @ (said - said.mean(0)))
    width = model.config.fusion.width
    for layer, basis, rows in (
        (model.video_projection, left[:, :width].T, images),
        (model.text_projection, right[:width], captions),
    ):
        assert layer is not None
        scaled = torch.from_numpy(np.asarray(basis / (rows @ basis.T).std(), np.float32))
        layer.weight.copy_(scaled)
        layer.bias.copy_(-scaled @ torch.from_numpy(rows.mean(0)))
    attention = model.fusion.blocks[0].get_submodule("attn.qkv").get_parameter("weight")
    attention[width : 2 * width] = attention[:width]
