"""The disjoint training of Dense VOC: every step takes the losses that the labels of its sample allow.

Source: Zhou et al., "Dense Video Object Captioning from Disjoint Supervision" (2023), sections 3.4 and 4.1, as its
reference computes it. A sample is T frames: filmed, views of one photograph, or photographs that have nothing to do
with each other. What has no boxes teaches captions alone, what has no captions teaches finding and following.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onlooker.operators.caption.git import GitDecoder
from onlooker.operators.objects.densevoc.aggregation import (
    soft_features,
    soft_weights,
    track_members,
    track_tokens,
    windowed,
)
from onlooker.operators.objects.densevoc.detector import Size
from onlooker.operators.objects.densevoc.identity import assign_identities
from onlooker.operators.objects.densevoc.model import DenseVoc

from .association_loss import association_loss, match_identities
from .caption_loss import object_caption_loss, track_texts
from .densevoc_recipes import DenseVocRecipe, LossName, parameter_groups
from .detection_loss import DetectionLoss, DetectionLossOptions, detection_loss, training_detections
from .targets import match_regions, object_classes

__all__ = ["DisjointLoss", "DisjointWeights", "Sample", "disjoint_loss", "train_disjoint"]


@dataclass(frozen=True)
class Sample:
    """T frames and what is known of them.

    Attributes:
        given: pictures (T, H, W, 3), RGB from 0 to 255, or the maps of a trunk: what `DenseVoc.levels` takes.
        size: (H, W) of the pictures in pixels.
        boxes: (T, G, 4) in pixels, filled up with zeros; G at least 1. None where only the video has a text.
        identities: (T, G) int64, 0 for boxes that fill up or whose track is not known.
        texts: (T, G, L) int64 `begin, words, end`, filled up with 0; begin and end alone for no text.
        video_text: (L,) int64, of all frames together.
    """

    given: Tensor | Sequence[Tensor]
    size: Size
    boxes: Tensor | None = None
    identities: Tensor | None = None
    texts: Tensor | None = None
    video_text: Tensor | None = None


@dataclass(frozen=True)
class DisjointWeights:
    """Weights of the parts of the loss.

    Attributes:
        detection: within the detector's loss, and how its targets are made; the recipe says how many regions are drawn.
        association: of pairs of detections.
        text: of captions of regions and of tracks.
        video: of captions of videos.
        label_smoothing: of all captions.
    """

    detection: DetectionLossOptions = DetectionLossOptions()
    association: float = 1.0
    text: float = 1.0
    video: float = 1.0
    label_smoothing: float = 0.1


class DisjointLoss(NamedTuple):
    """Parts of the loss, not weighted, and their weighted sum; 0 for what the labels do not allow."""

    total: Tensor
    detection: Tensor
    association: Tensor
    regions: Tensor
    tracks: Tensor
    video: Tensor


class _Described(NamedTuple):
    """The regions of a sample that are associated and captioned.

    Attributes:
        boxes: (T, N, 4).
        features: (T, N, S, C), zeros where there is no object.
        matched: (T, N) bool, whether there is one.
        which: (T, N) the true box that each overlaps most.
    """

    boxes: Tensor
    features: Tensor
    matched: Tensor
    which: Tensor


def disjoint_loss(
    model: DenseVoc,
    sample: Sample,
    losses: Sequence[LossName],
    recipe: DenseVocRecipe,
    *,
    weights: DisjointWeights | None = None,
    generator: torch.Generator | None = None,
) -> DisjointLoss:
    """The losses of one sample.

    Args:
        model: what is trained, in training mode.
        sample: with the labels that the losses need.
        losses: those to take.
        recipe: how many regions are drawn, described, and how they are matched.
        weights: of the parts.
        generator: of the draw of regions.

    Raises:
        ValueError: the sample lacks what a loss needs.
    """
    weights = weights or DisjointWeights()
    _check(sample, losses)
    levels = model.levels(sample.given)
    parts = {name: levels[0].new_zeros(()) for name in ("detection", "association", "regions", "tracks", "video")}
    if sample.boxes is not None:
        options = replace(weights.detection, regions=recipe.regions)
        found = detection_loss(model.detector, levels, sample.size, sample.boxes, options=options, generator=generator)
        if "detection" in losses:
            parts["detection"] = found.total
        seen = _described(model, levels, sample.size, sample.boxes, found, recipe)
        if "association" in losses:
            parts["association"] = _association(model, sample, seen, recipe)
        if "regions" in losses:
            parts["regions"] = _regions(model, sample, seen, weights)
        if "tracks" in losses:
            parts["tracks"] = _tracks(model, sample, seen, weights)
    if "video" in losses:
        parts["video"] = _video(model, levels, sample, weights)
    total = parts["detection"] + weights.association * parts["association"] + weights.video * parts["video"]
    return DisjointLoss(total + weights.text * (parts["regions"] + parts["tracks"]), **parts)


def _check(sample: Sample, losses: Sequence[LossName]) -> None:
    needs = {
        "detection": ("boxes",),
        "association": ("boxes", "identities"),
        "regions": ("boxes", "texts"),
        "tracks": ("boxes", "texts"),
        "video": ("video_text",),
    }
    for loss in losses:
        for name in needs[loss]:
            if getattr(sample, name) is None:
                raise ValueError(f"the loss {loss!r} needs {name}, which the sample does not have")


def _described(
    model: DenseVoc, levels: Sequence[Tensor], size: Size, truth: Tensor, found: DetectionLoss, recipe: DenseVocRecipe
) -> _Described:
    regions = found.sampled.regions
    if recipe.from_detections:
        regions = training_detections(model.detector, found.stages, size).boxes
    boxes = regions[:, : recipe.described].detach()
    match = match_regions(boxes, truth, object_classes(truth), recipe.described_overlap)
    features = model.detector.pool(levels, boxes, model.config.tracking.resolution)
    matched = match.classes > 0
    return _Described(boxes, features * matched[..., None, None], matched, match.which)


def _association(model: DenseVoc, sample: Sample, seen: _Described, recipe: DenseVocRecipe) -> Tensor:
    if model.association is None:
        raise ValueError("the model has no association to train")
    assert sample.boxes is not None and sample.identities is not None
    identities = match_identities(seen.boxes, sample.boxes, sample.identities, recipe.followed_overlap)
    return association_loss(model.association(seen.features), identities.flatten())


def _regions(model: DenseVoc, sample: Sample, seen: _Described, weights: DisjointWeights) -> Tensor:
    texts = _texts(sample, seen)
    logits = _captioner(model)(texts, seen.features.flatten(0, 1))
    return _caption_loss(model, logits, texts, seen.matched.flatten(), weights)


def _tracks(model: DenseVoc, sample: Sample, seen: _Described, weights: DisjointWeights) -> Tensor:
    """Captions do not teach the association: its scores are taken as they are."""
    options, texts = model.config.tracking, _texts(sample, seen)
    if model.association is None or options.aggregation == "none":
        raise ValueError("captions of tracks need an association, and aggregation hard or soft")
    with torch.no_grad():
        scores = model.association.scores(seen.features)
    if options.aggregation == "soft":
        mean = soft_features(seen.features, soft_weights(windowed(scores, len(seen.boxes), options.window)))
        return _caption_loss(
            model, _captioner(model)(texts, mean.flatten(0, 1)), texts, seen.matched.flatten(), weights
        )
    assigned = assign_identities(scores.cpu().numpy(), len(seen.boxes), options.threshold)
    identities = torch.from_numpy(assigned).to(texts.device)
    tokens = track_tokens(seen.features, identities.view(seen.which.shape), options.tracks, options.frames)
    members = track_members(identities, options.tracks)
    told = track_texts(texts, members, options.frames)
    logits = _captioner(model)(told, tokens.tokens, tokens.mask)
    return _caption_loss(model, logits, told, members.any(1), weights)


def _video(model: DenseVoc, levels: Sequence[Tensor], sample: Sample, weights: DisjointWeights) -> Tensor:
    assert sample.video_text is not None
    text = sample.video_text[None]
    logits = _captioner(model)(text, model.video_tokens(levels, sample.size)[None])
    return _caption_loss(model, logits, text, torch.ones_like(text[:, 0]), weights)


def _texts(sample: Sample, seen: _Described) -> Tensor:
    """(M, L), of the true box that each region overlaps most."""
    assert sample.texts is not None
    length = sample.texts.shape[-1]
    return sample.texts.gather(1, seen.which[..., None].expand(-1, -1, length)).flatten(0, 1)


def _caption_loss(model: DenseVoc, logits: Tensor, texts: Tensor, matched: Tensor, weights: DisjointWeights) -> Tensor:
    end = _captioner(model).config.end_token
    return object_caption_loss(logits, texts, matched, end, weights.label_smoothing).total


def _captioner(model: DenseVoc) -> GitDecoder:
    if model.captioner is None:
        raise ValueError("the model has no captioner to train")
    return model.captioner


def train_disjoint(
    model: DenseVoc,
    draws: Sequence[Callable[[np.random.Generator], Sample]],
    recipe: DenseVocRecipe,
    *,
    seed: int = 0,
    weights: DisjointWeights | None = None,
    report: Callable[[int, str, DisjointLoss], None] | None = None,
) -> None:
    """Train to the end of a recipe: each step draws one of its sources, all as likely, and a batch of samples from it.

    Args:
        model: is changed, and in eval mode afterwards.
        draws: for each source of the recipe what draws a sample of it.
        recipe: steps, learning rate, batch, sources.
        seed: everything random depends on it.
        weights: of the parts of the loss.
        report: is told the number of every step, its source and its loss, the mean of the batch.
    """
    optimizer = torch.optim.AdamW(parameter_groups(model))
    for step in range(recipe.steps):
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        torch.manual_seed(int(rng.integers(2**31)))  # of dropout
        source, draw = recipe.sources[number := int(rng.integers(len(draws)))], draws[number]
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * recipe.rate(step)
        optimizer.zero_grad()
        model.train()
        losses = []
        for _ in range(recipe.batch):
            loss = disjoint_loss(model, draw(rng), source.losses, recipe, weights=weights, generator=generator)
            (loss.total / recipe.batch).backward()  # type: ignore[no-untyped-call]
            losses.append(torch.stack([part.detach() for part in loss]))
        optimizer.step()
        if report is not None:
            report(step + 1, source.name, DisjointLoss(*torch.stack(losses).mean(0)))
    model.eval()
