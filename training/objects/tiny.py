"""The embedded object model: a detector and an association on the maps of the embedded tower.

    label_photographs(data, "train", cache / LABELS)
    fill_views(data, cache, recipe)
    fill_clips(data, cache, recipe)
    train_tiny_objects(cache, out, recipe)

Pictures with boxes are grids of photographs of the train split with the boxes of a teacher; videos with identities are
composed of the same photographs. The tower stays as it is, so it sees each picture once and its maps are kept. First
the detector learns with its pyramid, then the association on what the finished detector sees. Without the first step
pictures have the few boxes of which the teacher is sure, and all else is taught as background.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onlooker.operators.errors import OnlookerError
from onlooker.operators.objects.densevoc.association import AssociationConfig
from onlooker.operators.objects.densevoc.config import DetectorConfig, ProposalConfig, RoiConfig
from onlooker.operators.objects.densevoc.load import save_object_model
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig, TrackingConfig
from onlooker.operators.objects.densevoc.trunk_pyramid import TrunkPyramidConfig
from onlooker.operators.tower import load_tower
from onlooker.training.checkpoints import Checkpoint
from onlooker.training.schedules import LearningRate

from .association_train import AssociationTraining, clip_sightings, train_association
from .bank import ObjectBank
from .clips import ClipOptions, ClipViews, draw_clip
from .detection_loss import DetectionLossOptions
from .detector_data import ViewCache, ViewOptions, draw_view, open_boxes
from .detector_train import ObjectsLoss, ObjectsTrainer, ObjectsTraining

__all__ = [
    "LABELS",
    "TinyObjectsRecipe",
    "fill_clips",
    "fill_views",
    "open_clips",
    "open_views",
    "train_tiny_objects",
]

LABELS = "teacher.json"
"""In the cache: what the teacher sees in the photographs, see `onlooker.training.objects.teacher`."""
_TOWER = "tiny"
_STRIDES = (8, 16, 32)
_MAPS = ((24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7))
"""(C, h, w) of the embedded tower's maps: one of stride 4, then those at these strides."""

Report = Callable[[int, str], None]


@dataclass(frozen=True)
class TinyObjectsRecipe:
    """Everything that decides the weights, beside the data; the defaults are those of `tiny`.

    Attributes:
        seed: everything random depends on it.
        taught: pictures have all boxes of `LABELS`, each as far as the teacher is sure of it, and photographs of rare
            things are drawn more often.
        views: pictures that are drawn; each is seen several times.
        clips: pseudo-videos.
        steps: updates.
        width: C, of the pyramid's levels.
        inner: width inside the pyramid.
        bottleneck: width inside its blocks.
        blocks: residual blocks for each level of the pyramid.
        convs: of the proposal head.
        resolution: bins along a side of a region, for boxes and for the association.
        box_width: of the two layers of the box head.
        association_width: of a token.
        rate: learning rate after a warm-up of 100 steps; it falls along half a cosine.
        drawing: how pictures are drawn.
        filming: how clips are drawn.
        training: batches and losses; its seed, steps and rate are those above. The association does not take part.
        following: the training of the association, on the finished detector; its seed is that above.
        settings: what goes with the weights for use on streams.
    """

    seed: int = 0
    taught: bool = True
    views: int = 14000
    clips: int = 320
    steps: int = 6400
    width: int = 64
    inner: int = 96
    bottleneck: int = 64
    blocks: tuple[int, int, int] = (2, 3, 3)
    convs: int = 2
    resolution: int = 5
    box_width: int = 192
    association_width: int = 160
    rate: float = 2e-3
    drawing: ViewOptions = field(default_factory=ViewOptions)
    filming: ClipOptions = field(default_factory=ClipOptions)
    training: ObjectsTraining = field(
        default_factory=lambda: ObjectsTraining(
            clip_every=0, average=0.998, loss=DetectionLossOptions(regions=64, positive_fraction=0.35)
        )
    )
    following: AssociationTraining = field(default_factory=lambda: AssociationTraining(steps=5000))
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self) -> DenseVocConfig:
        """Of a model for maps of the embedded tower."""
        # Half the usual canonical size: in pictures of 224 pixels objects are half as large as where it comes from.
        detector = DetectorConfig(
            backbone=None,
            channels=self.width,
            strides=_STRIDES,
            canonical_size=112.0,
            proposals=ProposalConfig(
                width=self.width,
                num_layers=self.convs,
                groups=8,
                nms_threshold=0.8,
                candidates=400,
                proposals=200,
                train_candidates=200,
                train_proposals=60,
            ),
            roi=RoiConfig(
                widths=(self.box_width, self.box_width),
                resolution=self.resolution,
                match_thresholds=(0.5, 0.65),
                nms_threshold=0.6,
                score_threshold=0.01,
                detections=100,
                second_chance=True,
            ),
        )
        return DenseVocConfig(
            detector=detector,
            trunk=TrunkPyramidConfig(
                tuple(shape[0] for shape in _MAPS[1:]),
                self.width,
                detail=_MAPS[0][0],
                inner=self.inner,
                bottleneck=self.bottleneck,
                blocks=self.blocks,
            ),
            association=AssociationConfig(self.resolution**2 * self.width, self.association_width, 4),
            captioner=None,
            tracking=TrackingConfig(resolution=self.resolution, background=0.35, threshold=0.3),
        )


def open_views(cache: Path, recipe: TinyObjectsRecipe) -> ViewCache:
    """The pictures of a cache, filled or not.

    Raises:
        ValueError: the cache is of another recipe.
    """
    folder = cache / ("views" if recipe.taught else "views_sure")
    return ViewCache.open(folder, recipe.views, _MAPS, recipe.drawing.most)


def open_clips(cache: Path, recipe: TinyObjectsRecipe) -> ViewCache:
    """The pseudo-videos of a cache, filled or not: T frames of one after another.

    Raises:
        ValueError: the cache is of another recipe.
    """
    return ViewCache.open(cache / "clips", recipe.clips * recipe.filming.frames, _MAPS, recipe.filming.most)


def fill_views(
    data: Path, cache: Path, recipe: TinyObjectsRecipe, report: Report | None = None, split: str = "train"
) -> None:
    """Draw and encode the pictures that a cache lacks; `report` is told how many of all are there."""
    bank, views = open_boxes(data, split, cache / LABELS if recipe.taught else None), open_views(cache, recipe)
    tower = load_tower(_TOWER, None, "image")
    views.fill(tower, lambda index: draw_view(bank, _rng(recipe, 0, index), recipe.drawing), report)


def fill_clips(
    data: Path, cache: Path, recipe: TinyObjectsRecipe, report: Report | None = None, split: str = "train"
) -> None:
    """Draw and encode the pseudo-videos that a cache lacks; `report` is told how many frames of all are there."""
    bank, clips = ObjectBank.flickr(data, split), open_clips(cache, recipe)
    tower = load_tower(_TOWER, None, "image")
    frames = ClipViews(lambda number: draw_clip(bank, _rng(recipe, 1, number), recipe.filming), recipe.filming.frames)
    clips.fill(tower, frames, report)


def _rng(recipe: TinyObjectsRecipe, kind: int, index: int) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, kind, index])


def train_tiny_objects(
    cache: Path,
    out: Path,
    recipe: TinyObjectsRecipe,
    report: Callable[[int, ObjectsLoss], None] | None = None,
    save_every: int = 100,
) -> DenseVoc:
    """Train a model and write the folder that `load_object_model` reads.

    Args:
        cache: filled by `fill_views` and `fill_clips`.
        out: folder for weights and checkpoint. A checkpoint of the same run that lies there is gone on from.
        recipe: what decides the weights.
        report: is told the number and the loss of every step.
        save_every: steps between checkpoints.

    Raises:
        OnlookerError: the cache is not full, the folder holds another run, or the loss is no number any more.
        OSError: the folder cannot be written.
    """
    views, clips = open_views(cache, recipe), open_clips(cache, recipe)
    if len(views.missing()) or len(clips.missing()):
        raise OnlookerError(f"the cache {cache.name!r} lacks pictures or clips: fill it first.")
    torch.manual_seed(recipe.seed)
    trainer = ObjectsTrainer(DenseVoc(recipe.config()), _training(recipe))
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(out, asdict(recipe))
    checkpoint.resume(trainer)

    def told(step: int, loss: ObjectsLoss) -> None:
        if not math.isfinite(float(loss.total)):
            raise OnlookerError(f"the loss is no number any more at step {step}: take a lower learning rate.")
        if report is not None:
            report(step, loss)
        if step % save_every == 0 or step == recipe.steps:
            checkpoint.save(trainer)

    model = trainer.run(views, clips, told)
    assert model.association is not None
    following = replace(recipe.following, seed=recipe.seed, frames=recipe.filming.frames)
    model.association = train_association(model.association, clip_sightings(model, clips, following), following)
    save_object_model(out, model, tower=_TOWER, settings=recipe.settings, dtype=torch.float16)
    return model


def _training(recipe: TinyObjectsRecipe) -> ObjectsTraining:
    rate = LearningRate(recipe.rate, min(100, recipe.steps - 1), cosine_steps=recipe.steps)
    return replace(recipe.training, seed=recipe.seed, steps=recipe.steps, rate=rate)
