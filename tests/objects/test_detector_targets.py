"""Targets of cells and the draw of regions: what must hold for any of them."""

from __future__ import annotations

import torch

from onlooker.training.objects.targets import (
    IGNORE,
    cell_targets,
    level_ranges,
    limit_labels,
    match_regions,
    object_classes,
    sample_regions,
)

from .test_boxes import random_boxes

STRIDES = (8, 16, 32)
SHAPES = [(12, 12), (6, 6), (3, 3)]


def test_ranges_of_the_published_levels() -> None:
    expected = ((0, 40), (32, 80), (64, 160), (128, 320), (256, 50000))
    assert level_ranges((8, 16, 32, 64, 128)) == expected


def test_one_object() -> None:
    """One centre, on its level alone, and boxes in the cells around it."""
    box = torch.tensor([[[21.0, 30.0, 53.0, 66.0]]])
    wanted = cell_targets(box, SHAPES, STRIDES, level_ranges(STRIDES))
    peak = (wanted.heatmap[0] == 1).nonzero().flatten().tolist()
    assert peak == [6 * 12 + 4]  # the middle, 37, 48, lies in row 6, column 4 of stride 8
    told = (wanted.reach[0].amin(-1) > 0).nonzero().flatten()
    assert sorted(told.tolist()) == [row * 12 + column for row in (5, 6, 7) for column in (3, 4, 5)]
    x, y = 4 * 8 + 4, 6 * 8 + 4
    torch.testing.assert_close(wanted.reach[0, peak[0]] * 8, torch.tensor([x - 21.0, y - 30.0, 53.0 - x, 66.0 - y]))


def test_a_centre_counts_on_its_own_level_alone() -> None:
    """Also where it falls exactly on a cell of another one."""
    x, y = 4 * 8 + 4, 6 * 8 + 4
    box = torch.tensor([[[x - 32.0, y - 32.0, x + 32.0, y + 32.0]]])  # half a diagonal of 45: stride 16
    heatmap = cell_targets(box, SHAPES, STRIDES, level_ranges(STRIDES)).heatmap[0]
    assert 0.99 < heatmap[6 * 12 + 4] < 1
    assert (heatmap == 1).nonzero().flatten().tolist() == [144 + 3 * 6 + 2]


def test_a_cell_goes_to_the_nearer_object() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 40.0, 40.0], [16.0, 0.0, 56.0, 40.0]]])
    wanted = cell_targets(boxes, SHAPES, STRIDES, level_ranges(STRIDES))
    torch.testing.assert_close(wanted.reach[0, 2 * 12 + 1] * 8, torch.tensor([12.0, 20.0, 28.0, 20.0]))
    torch.testing.assert_close(wanted.reach[0, 2 * 12 + 5] * 8, torch.tensor([28.0, 20.0, 12.0, 20.0]))


def test_no_object() -> None:
    wanted = cell_targets(torch.zeros(1, 3, 4), SHAPES, STRIDES, level_ranges(STRIDES))
    assert not wanted.heatmap.any() and (wanted.reach < 0).all()


def test_draw() -> None:
    """Objects first, at most their part, true boxes among them, all classes told."""
    truth = random_boxes(2, 3, seed=5)
    truth[1, 2] = 0
    near = truth.repeat_interleave(8, 1) + 0.5
    proposals = torch.cat([near, random_boxes(2, 60, side=400.0, seed=6) + 300], 1)
    classes = object_classes(truth, torch.tensor([[4, 5, 6], [7, 8, 0]]))
    drawn = sample_regions(
        proposals,
        truth,
        classes,
        threshold=0.6,
        count=32,
        positive_fraction=0.25,
        generator=torch.Generator().manual_seed(0),
    )
    assert drawn.regions.shape == (2, 32, 4)
    positive = drawn.classes > 0
    assert positive.sum(1).tolist() == [8, 8] and positive[:, :8].all()
    assert set(drawn.classes[0, :8].tolist()) <= {5, 6, 7} and set(drawn.classes[1, :8].tolist()) <= {8, 9}
    again = match_regions(drawn.regions, truth, classes, 0.6)
    assert (again.classes[positive] == drawn.classes[positive]).all()


def test_draws_differ_and_can_be_repeated() -> None:
    truth, proposals = random_boxes(1, 2), random_boxes(1, 200, side=500.0, seed=3)
    draws = [
        sample_regions(
            proposals,
            truth,
            object_classes(truth),
            threshold=0.6,
            count=20,
            positive_fraction=0.25,
            generator=torch.Generator().manual_seed(seed),
        ).regions
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_every_label_is_as_likely_to_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[1, 0, 1, 1, 0, 1]]).repeat(4000, 1)
    limited = limit_labels(labels, 1, 2, generator)
    assert ((limited == 1).sum(1) == 2).all() and ((limited == IGNORE).sum(1) == 2).all()
    assert torch.equal(limited == 0, labels == 0)
    torch.testing.assert_close((limited == 1).float().mean(0)[[0, 2, 3, 5]], torch.full((4,), 0.5), atol=0.05, rtol=0)


def test_too_few_regions_are_all_taken() -> None:
    truth = random_boxes(1, 2)
    drawn = sample_regions(
        random_boxes(1, 3, seed=1), truth, object_classes(truth), threshold=0.6, count=50, positive_fraction=0.25
    )
    assert drawn.regions.shape == (1, 5, 4)
