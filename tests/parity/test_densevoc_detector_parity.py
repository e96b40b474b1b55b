"""The detector of Dense VOC against the reference: boxes, suppression, RoIAlign."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from onlooker.operators.objects.densevoc.boxes import (
    best_match,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_iou,
)
from onlooker.operators.objects.densevoc.nms import padded_nms
from onlooker.operators.objects.densevoc.roi_align import box_levels, roi_align
from onlooker.training.objects.detection_loss import giou_loss
from onlooker.training.objects.targets import label_overlaps

from .dense_voc_detector import assert_near, below, channels_first, parametrize_files, read, tensor

SWAPPED = [1, 0, 3, 2]
"""Turns y, x boxes into x, y ones and back."""


def pytest_generate_tests(metafunc: Any) -> None:
    """An argument is a kind of files: the test gets each of them."""
    for kind in metafunc.fixturenames:
        parametrize_files(metafunc, kind)


def test_boxes(c_boxes: Path | None) -> None:
    arrays = read(c_boxes)
    weights = tuple(arrays["weights"].tolist())
    anchors, truth = tensor(arrays["anchors"]), tensor(arrays["gt"])
    assert_near(decode_boxes(tensor(arrays["deltas"]), anchors, weights), arrays["decoded"])
    assert_near(encode_boxes(truth, anchors, weights), arrays["encoded"])
    assert_near(pairwise_iou(truth, anchors), arrays["pairwise_iou"])
    degenerate = tensor(arrays["iou_with_degenerate_in"])
    assert_near(pairwise_iou(degenerate, anchors), arrays["iou_with_degenerate"])
    height, width = arrays["clip_hw"]
    assert_near(clip_boxes(truth[:, SWAPPED], width, height)[:, SWAPPED], arrays["clipped_yxyx"])
    assert_near(giou_loss(tensor(arrays["ltrb_a"]), tensor(arrays["ltrb_b"])), arrays["giou_loss"])


def test_assignment(c_boxes: Path | None) -> None:
    arrays = read(c_boxes)
    match = best_match(tensor(arrays["iou_with_degenerate_in"]), tensor(arrays["anchors"]))
    for name, thresholds, labels in (("assign1", (0.6,), (0, 1)), ("assign2", (0.3, 0.7), (0, -1, 1))):
        assert match.index.tolist() == arrays[f"{name}_match"].tolist()
        assert label_overlaps(match.iou, thresholds, labels).tolist() == arrays[f"{name}_label"].tolist()


def test_suppression(c_nms: Path | None) -> None:
    arrays = read(c_nms)
    cases = sorted({match[0] for name in arrays if (match := re.match(r"c\d+/", name))})
    assert len(cases) == arrays["num_cases"]
    for case in cases:
        given = {name: tensor(array) for name, array in below(arrays, case).items()}
        boxes, scores, classes = given["boxes"], given["scores"], given["classes"]
        rule = int(given["output_size"]), float(given["iou_threshold"])
        kept = padded_nms(boxes, *rule, classes)
        np.testing.assert_array_equal(boxes[kept.index], given["batched_boxes"])
        np.testing.assert_array_equal(scores[kept.index] * kept.valid, given["batched_scores"])
        np.testing.assert_array_equal(classes[kept.index], given["batched_classes"])
        kept = padded_nms(boxes, *rule)
        np.testing.assert_array_equal(boxes[kept.index] * kept.valid[:, None], given["padded_boxes"])
        np.testing.assert_array_equal(scores[kept.index] * kept.valid, given["padded_scores"])
        np.testing.assert_array_equal(kept.index[kept.valid], given["padded_idx"][kept.valid])


def test_roi_align_of_one_map(c_roi_align: Path | None) -> None:
    arrays = read(c_roi_align)
    assert arrays["single_sampling_ratio"] == 2
    expected = arrays["single_out"]
    pooled = roi_align(
        [channels_first(arrays["single_feature"][None])],
        tensor(arrays["single_boxes"])[None],
        [1],
        int(arrays["single_size"]),
    )
    assert_near(pooled[0].view(expected.shape), expected)


def test_roi_align_of_a_pyramid(c_roi_align: Path | None) -> None:
    arrays = read(c_roi_align)
    strides = arrays["ml_strides"].tolist()
    boxes = tensor(arrays["ml_boxes"])
    levels = box_levels(boxes, strides) + int(np.log2(strides[0]))
    assert levels.tolist() == arrays["ml_level"].tolist()
    maps = [channels_first(arrays[f"ml_feature_stride{stride}"]) for stride in strides]
    for name, expected in below(arrays, "ml_out").items():
        pooled = roi_align(maps, boxes, strides, int(name))
        assert_near(pooled.view(expected.shape), expected)
