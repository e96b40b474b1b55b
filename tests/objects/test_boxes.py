"""Geometry of boxes: what holds for any of them."""

from __future__ import annotations

import torch

from onlooker.operators.objects.densevoc.boxes import (
    LARGEST_DELTA,
    best_match,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_iou,
)

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(*shape: int, side: float = 100.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator) * side
    return torch.cat([low, low + 1 + torch.rand(*shape, 2, generator=generator) * side / 2], -1)


def test_coded_boxes_are_decoded() -> None:
    boxes, anchors = random_boxes(3, 20), random_boxes(3, 20, seed=1)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors, WEIGHTS), anchors, WEIGHTS), boxes)


def test_growth_is_limited() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    grown = decode_boxes(torch.tensor([[0.0, 0.0, 1e6, 5 * LARGEST_DELTA]]), anchor, WEIGHTS)
    torch.testing.assert_close(grown[0, 2:] - grown[0, :2], torch.tensor([1000.0, 1000.0]))


def test_iou_of_known_pairs() -> None:
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    other = torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    expected = torch.tensor([[1 / 3, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(pairwise_iou(one, other), expected)


def test_the_first_of_equal_matches() -> None:
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    match = best_match(torch.cat([box + 10, box, box]), box)
    assert (match.which.item(), match.iou.item()) == (1, 1.0)


def test_clipped_boxes_lie_in_the_picture() -> None:
    clipped = clip_boxes(random_boxes(50, side=300.0) - 100, 80, 60)
    assert clipped.min() == 0 and clipped[:, 2].max() == 80 and clipped[:, 3].max() == 60
