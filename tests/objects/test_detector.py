"""The detector as a whole: its configuration, its shapes, and that it learns to find what it is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.boxes import pairwise_iou
from onlooker.operators.objects.densevoc.config import BackboneConfig, DetectorConfig, ProposalConfig, RoiConfig
from onlooker.operators.objects.densevoc.detector import Detector
from onlooker.operators.objects.densevoc.vit import distances
from onlooker.training.objects.detection_loss import (
    DetectionLossOptions,
    detection_loss,
    training_detections,
)

TINY = DetectorConfig(
    backbone=None,
    channels=16,
    strides=(8, 16, 32),
    proposals=ProposalConfig(
        width=16, num_layers=1, groups=4, candidates=60, proposals=30, train_candidates=60, train_proposals=30
    ),
    roi=RoiConfig(widths=(32,), resolution=3, detections=6),
)
BACKBONE = BackboneConfig(
    image_size=64, width=16, num_layers=2, num_heads=2, window_size=3, window_blocks=(0,), pretrain_size=32
)


def levels(config: DetectorConfig, batch: int = 2, height: int = 64, width: int = 96, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = [(height // stride, width // stride) for stride in config.strides]
    return [torch.randn(batch, config.channels, *side, generator=generator) for side in sides]


@pytest.mark.parametrize("config", [DetectorConfig(), TINY, replace(TINY, canonical_size=112.0)])
def test_a_config_survives_json(config: DetectorConfig) -> None:
    assert DetectorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"strides": (8, 24)}, "strides"), ({"strides": (8, 32)}, "strides"), ({"backbone": BACKBONE}, "backbone's")],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(TINY, **changes)  # type: ignore[arg-type]


def test_unknown_values_are_refused() -> None:
    with pytest.raises(TypeError, match="stride_list"):
        DetectorConfig.from_dict(TINY.to_dict() | {"stride_list": [8]})


@torch.inference_mode()
def test_pictures_to_objects() -> None:
    """Any size: positions are resized, windows filled up, and boxes lie in the picture."""
    torch.manual_seed(0)
    config = DetectorConfig(BACKBONE, 8, proposals=replace(TINY.proposals, groups=4), roi=TINY.roi)
    detector = Detector(config).eval()
    images = torch.randint(0, 256, (2, 80, 112, 3))
    pyramid = detector.pyramid(images)
    assert [tuple(level.shape) for level in pyramid] == [
        (2, 8, *side) for side in ((10, 14), (5, 7), (2, 3), (1, 2), (1, 1))
    ]
    found = detector(images)
    assert found.boxes.shape == (2, 6, 4) and found.scores.shape == found.classes.shape == (2, 6)
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([112.0, 80.0, 112.0, 80.0])).all()
    assert (found.scores.diff(dim=1) <= 0).all()


@torch.inference_mode()
def test_pictures_of_a_batch_are_independent() -> None:
    torch.manual_seed(0)
    detector = Detector(TINY).eval()
    batch = levels(TINY)
    together = detector.detect(batch, (64, 96))
    alone = detector.detect([level[1:] for level in batch], (64, 96))
    torch.testing.assert_close(together.boxes[1:], alone.boxes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.scores[1:], alone.scores)


def test_without_a_backbone_there_is_no_pyramid() -> None:
    with pytest.raises(RuntimeError, match="backbone"):
        Detector(TINY).pyramid(torch.zeros(1, 64, 64, 3))


def test_relative_positions() -> None:
    table = torch.arange(7.0)[:, None].expand(7, 2)
    assert distances(table, 4)[..., 0].tolist() == [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]
    assert distances(table, 6).shape == (6, 6, 2)
    places = ((torch.arange(11.0) + 0.5) * 7 / 11 - 0.5).clamp(0, 6)  # a longer table is interpolated
    longer = distances(table, 6)[..., 0]
    torch.testing.assert_close(torch.cat([longer[0].flip(0), longer[1:, 0]]), places)
    assert distances(table, 2)[0, 0, 0].item() == pytest.approx(3)


def squares(count: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """Pictures of 64 x 96 with one bright rectangle each: a pyramid that shows it, and the box."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([50.0, 25.0])
    sides = 18 + torch.rand(count, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + sides], 1)
    y, x = torch.arange(64)[:, None] + 0.5, torch.arange(96) + 0.5
    picture = torch.stack([((x > x0) & (x < x1) & (y > y0) & (y < y1)).float() for x0, y0, x1, y1 in boxes.tolist()])[
        :, None
    ]
    features = []
    for stride in TINY.strides:
        offsets = torch.nn.functional.pixel_unshuffle(picture, 4)  # 16 channels at stride 4
        features.append(torch.nn.functional.avg_pool2d(offsets, stride // 4))
    return features, boxes[:, None]


def test_training_finds_what_it_is_shown() -> None:
    """And a detector that was told of other boxes does not."""
    hits = {}
    for told in ("true", "shuffled"):
        torch.manual_seed(0)
        detector = Detector(TINY)
        optimizer = torch.optim.AdamW(detector.parameters(), 4e-3)
        generator = torch.Generator().manual_seed(1)
        for step in range(45):
            pyramid, truth = squares(8, step)
            given = truth if told == "true" else truth.roll(1, 0)
            options = DetectionLossOptions(regions=16)
            loss = detection_loss(detector, pyramid, (64, 96), given, options=options, generator=generator)
            optimizer.zero_grad()
            loss.total.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
            optimizer.step()
        pyramid, truth = squares(40, 10_000)
        with torch.inference_mode():
            found = detector.eval().detect(pyramid, (64, 96))
        hits[told] = (pairwise_iou(truth, found.boxes[:, :1]) > 0.5).float().mean().item()
    assert hits["true"] > 0.8 > 0.4 > hits["shuffled"], hits


def test_nothing_in_the_picture_and_boxes_that_fill_up() -> None:
    """Losses are finite, and the places that fill up change nothing."""
    torch.manual_seed(0)
    detector = Detector(TINY)
    pyramid, truth = squares(3, 0)
    truth[1] = 0
    losses = []
    for filled in (truth, torch.cat([truth, torch.zeros(3, 4, 4)], 1)):
        generator = torch.Generator().manual_seed(2)
        options = DetectionLossOptions(regions=200, positive_fraction=1.0)
        losses.append(detection_loss(detector, pyramid, (64, 96), filled, options=options, generator=generator))
    assert losses[0].total.isfinite()
    torch.testing.assert_close(losses[0].proposals, losses[1].proposals)
    assert (losses[0].sampled.classes[1] == 0).all()
    assert training_detections(detector, losses[0].stages, (64, 96)).boxes.shape == (3, 100, 4)
