"""Training of detector and association, on coloured rectangles that a tower of colours sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.config import BackboneConfig, DetectorConfig
from onlooker.operators.objects.densevoc.model import DenseVoc, DenseVocConfig
from onlooker.operators.objects.metrics.detection import Detected, average_precision, match_image
from onlooker.training.objects.association_train import (
    AssociationTraining,
    clip_sightings,
    found_identities,
    train_association,
)
from onlooker.training.objects.bank import ObjectBank
from onlooker.training.objects.clips import ClipOptions, ClipViews, draw_clip
from onlooker.training.objects.detector_data import ViewCache, ViewOptions, draw_view, open_boxes
from onlooker.training.objects.detector_train import ObjectsTrainer, ObjectsTraining, sighted
from onlooker.training.objects.pseudo_video import SceneOptions
from onlooker.training.schedules import LearningRate

from .objects_world import ColourTower, open_cache, small_model, write_world

FRAMES = 8
SHORT = ObjectsTraining(steps=40, pictures=4, frames=FRAMES, rate=LearningRate(5e-3, 5, cosine_steps=40), average=0.9)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[ViewCache, ViewCache]:
    """16 pictures, and 4 clips of 8 frames."""
    root = tmp_path_factory.mktemp("world")
    write_world(root)
    photographs, objects = open_boxes(root, "train"), ObjectBank.flickr(root, "train")
    views, clips = open_cache(root / "views", 16), open_cache(root / "clips", 4 * FRAMES)
    large = ViewOptions(grids=((1, 1, 0.5), (1, 2, 0.5)))
    views.fill(ColourTower(), lambda index: draw_view(photographs, np.random.default_rng(index), large))
    scene = SceneOptions(hidden=0, noise=0.0)
    options = ClipOptions(frames=FRAMES, zoomed=0.0, scene=scene)
    clips.fill(ColourTower(), ClipViews(lambda n: draw_clip(objects, np.random.default_rng(n), options), FRAMES))
    return views, clips


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def precision(model: DenseVoc, views: ViewCache) -> float:
    maps, truth, _ = views.read(np.arange(16))
    found = model.detector.detect(model.levels(maps), (224, 224))
    rows = zip(truth, found.boxes, found.scores, strict=True)
    matched = [match_image(Detected(t[t[:, 2] > 0], b[s > 0], s[s > 0])) for t, b, s in rows]
    return average_precision(matched)


@torch.no_grad()
def confusion(trainer: ObjectsTrainer, model: DenseVoc, clips: ViewCache) -> float:
    """The association's loss on all clips."""
    starts = range(0, len(clips.done), FRAMES)
    rows = [clips.read(np.arange(first, first + FRAMES)) for first in starts]
    return float(np.mean([trainer.track_loss(model, row.maps, row.boxes, generator()) for row in rows]))


def test_detection_and_association_are_learnt_in_one_run(caches: tuple[ViewCache, ViewCache]) -> None:
    views, clips = caches
    trainer = ObjectsTrainer(small_model(), SHORT)
    before = precision(trainer.average, views), confusion(trainer, trainer.average, clips)
    parts: list[tuple[int, float]] = []
    average = trainer.run(views, clips, lambda step, loss: parts.append((step, float(loss.track))))
    after = precision(average, views), confusion(trainer, average, clips)
    assert [step for step, _ in parts] == list(range(1, SHORT.steps + 1))
    assert [bool(track) for _, track in parts[:4]] == [True, False, True, False]
    assert after[0] > before[0] + 0.2, (before, after)
    assert after[1] < 0.8 * before[1], (before, after)


def test_the_last_stage_learns_on_features_of_a_finished_detector(caches: tuple[ViewCache, ViewCache]) -> None:
    model = ObjectsTrainer(small_model(), replace(SHORT, steps=2)).run(*caches)
    assert model.association is not None
    training = AssociationTraining(frames=FRAMES, steps=120, rate=3e-3, score=0.0)
    seen = clip_sightings(model, caches[1], training)
    assert len(seen) == 4 * 3  # two draws and the detections of each clip
    weights = [each.clone() for each in model.detector.parameters()]
    losses: list[float] = []
    average = train_association(model.association, seen, training, lambda _, loss: losses.append(loss))
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])
    assert not average.training and len(losses) == 120
    assert all(torch.equal(one, other) for one, other in zip(weights, model.detector.parameters(), strict=True))


def test_detections_are_what_they_overlap() -> None:
    truth = torch.tensor([[[0.0, 0, 100, 100]], [[0, 0, 0, 0]]])
    found = torch.tensor([[[0.0, 0, 100, 60], [0, 0, 100, 40], [150, 150, 200, 200]], [[0, 0, 100, 100]] * 3])
    identities = found_identities(found, truth)
    assert identities[0, :2].tolist() == [1, 0]  # the same; too much of it to be another
    others = torch.cat([identities[0, 2:], identities[1]])
    assert len(others.unique()) == 4 and others.min() > 1


def test_a_run_goes_on_as_if_it_had_not_been_interrupted(caches: tuple[ViewCache, ViewCache]) -> None:
    training = replace(SHORT, steps=6)
    whole = ObjectsTrainer(small_model(), training).run(*caches)
    first = ObjectsTrainer(small_model(), replace(training, steps=3))
    first.run(*caches)
    second = ObjectsTrainer(small_model(), training)
    second.restore(first.state())
    for one, other in zip(whole.parameters(), second.run(*caches).parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_an_association_only_the_detector_learns(caches: tuple[ViewCache, ViewCache]) -> None:
    model = DenseVoc(replace(small_model().config, association=None))
    told: list[float] = []
    ObjectsTrainer(model, replace(SHORT, steps=2)).run(*caches, lambda _, loss: told.append(float(loss.track)))
    assert told == [0.0, 0.0]


def test_a_model_with_a_backbone_is_refused() -> None:
    config = DetectorConfig(
        BackboneConfig(image_size=64, width=8, num_layers=1, num_heads=2, window_blocks=(), pretrain_size=32),
        channels=8,
    )
    with pytest.raises(ValueError, match="trunk"):
        ObjectsTrainer(DenseVoc(DenseVocConfig(config, association=None, captioner=None)), SHORT)


TRUTH = torch.tensor([[[20.0, 20, 80, 90], [120, 100, 200, 180]], [[30, 20, 90, 90], [0, 0, 0, 0]]])


def test_true_boxes_are_seen_nearly_where_they_are() -> None:
    exact = sighted(TRUTH, 0, 0.0, generator())
    assert torch.equal(exact.boxes, TRUTH)
    assert exact.identities.tolist() == [[1, 2], [1, 0]]
    off = (sighted(TRUTH, 0, 0.1, generator()).boxes - TRUTH).abs()
    assert 0 < off.max() < 40 and off[1, 1].max() == 0


def test_strangers_are_objects_of_their_own_unless_they_resemble_one() -> None:
    seen = sighted(TRUTH, 200, 0.0, generator())
    strangers: Tensor = seen.identities[:, 2:]
    known = strangers[strangers > 0]
    assert len(known.unique()) == len(known) and known.min() > 2
    assert 0 < len(known) < strangers.numel()
    assert (seen.boxes >= 0).all() and (seen.boxes <= 224).all()
