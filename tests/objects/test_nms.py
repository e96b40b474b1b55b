"""Suppression in tiles against the plain greedy rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onlooker.operators.objects.densevoc.boxes import pairwise_iou
from onlooker.operators.objects.densevoc.nms import nms, padded_nms

from .test_boxes import random_boxes


def greedy(boxes: Tensor, limit: int, threshold: float) -> list[int]:
    """The rule of every textbook, box by box."""
    overlap = pairwise_iou(boxes, boxes)
    kept: list[int] = []
    for index in range(len(boxes)):
        if len(kept) < limit and bool((overlap[kept, index] < threshold).all()):
            kept.append(index)
    return kept


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
@pytest.mark.parametrize(("count", "limit"), [(1, 5), (90, 10), (256, 256), (700, 300), (700, 700)])
def test_greedy(count: int, limit: int, threshold: float) -> None:
    crowd = random_boxes(count, side=20.0, seed=count)
    crowd[count // 2 :] = crowd[: count - count // 2] + 0.03  # near doubles, also of boxes in other tiles
    expected = greedy(crowd, limit, threshold)
    assert len(expected) < count or count == 1, "nothing was suppressed"
    assert nms(crowd, limit, threshold).tolist() == expected


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0], [6.0, 0.0, 16.0, 10.0]])
    assert nms(chain, 3, 0.5).tolist() == [0, 2]


def test_below_one_half_a_suppressed_box_may_suppress() -> None:
    """So the reference has it, of boxes in one tile that overlap by no more than one half."""
    chain = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.3, 0.0, 14.3, 10.0], [8.6, 0.0, 18.6, 10.0]])
    assert greedy(chain, 3, 0.3) == [0, 2]
    assert nms(chain, 3, 0.3).tolist() == [0]


def test_boxes_without_positive_coordinates_are_absent() -> None:
    boxes = torch.tensor([[-9.0, -9.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 4.0, 4.0]])
    assert nms(boxes, 3, 0.5).tolist() == [2]


def test_nothing_in_nothing_out() -> None:
    assert nms(torch.zeros(0, 4), 3, 0.5).tolist() == []


def test_free_places_hold_the_last_box() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.1], [1.0, 1.0, 9.0, 9.0]])
    kept = padded_nms(boxes, 4, 0.9)
    assert kept.which.tolist() == [0, 2, 2, 2]
    assert kept.valid.tolist() == [True, True, False, False]


def test_classes_do_not_see_each_other() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(4, 1)
    assert padded_nms(boxes, 4, 0.5, torch.tensor([0, 1, 1, 0])).which.tolist() == [0, 1, 3, 3]
    assert padded_nms(boxes, 4, 0.5).valid.sum() == 1
