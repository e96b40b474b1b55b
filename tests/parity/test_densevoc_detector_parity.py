"""The detector of Dense VOC against the reference: boxes, suppression, RoIAlign."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from onlooker.operators.objects.densevoc.boxes import (
    best_match,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_iou,
)
from onlooker.operators.objects.densevoc.centernet import CenterNetHead, cell_centers, find_peaks, keep_proposals
from onlooker.operators.objects.densevoc.config import ProposalConfig
from onlooker.operators.objects.densevoc.nms import padded_nms
from onlooker.operators.objects.densevoc.pyramid import SimplePyramid
from onlooker.operators.objects.densevoc.roi_align import box_levels, roi_align
from onlooker.operators.objects.densevoc.roi_heads import BOX_WEIGHTS, Pooling, RoiHeads, Stage, select_detections
from onlooker.training.objects.detection_loss import (
    DetectionLossOptions,
    giou_loss,
    proposal_loss,
    region_loss,
    region_targets,
)
from onlooker.training.objects.targets import cell_targets, label_overlaps, match_regions

from .dense_voc_detector import (
    assert_near,
    backbone_config,
    below,
    by_number,
    cascades,
    channels_first,
    head_config,
    load,
    parametrize_files,
    proposal_maps,
    read,
    roi_heads,
    tensor,
)
from .goldens import Case

KINDS = {"c_boxes", "c_nms", "c_roi_align", "c_centernet", "d_detector_tiny"}
SWAPPED = [1, 0, 3, 2]
"""Turns y, x boxes into x, y ones and back."""


def pytest_generate_tests(metafunc: Any) -> None:
    """An argument is a kind of files: the test gets each of them."""
    for kind in KINDS.intersection(metafunc.fixturenames):
        parametrize_files(metafunc, kind)


def test_boxes(c_boxes: Case | None) -> None:
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


def test_assignment(c_boxes: Case | None) -> None:
    arrays = read(c_boxes)
    match = best_match(tensor(arrays["iou_with_degenerate_in"]), tensor(arrays["anchors"]))
    for name, thresholds, labels in (("assign1", (0.6,), (0, 1)), ("assign2", (0.3, 0.7), (0, -1, 1))):
        assert match.which.tolist() == arrays[f"{name}_match"].tolist()
        assert label_overlaps(match.iou, thresholds, labels).tolist() == arrays[f"{name}_label"].tolist()


def test_suppression(c_nms: Case | None) -> None:
    arrays = read(c_nms)
    cases = sorted({match[0] for name in arrays if (match := re.match(r"c\d+/", name))})
    assert len(cases) == arrays["num_cases"]
    for case in cases:
        given = {name: tensor(array) for name, array in below(arrays, case).items()}
        boxes, scores, classes = given["boxes"], given["scores"], given["classes"]
        rule = int(given["output_size"]), float(given["iou_threshold"])
        kept = padded_nms(boxes, *rule, classes)
        np.testing.assert_array_equal(boxes[kept.which], given["batched_boxes"])
        np.testing.assert_array_equal(scores[kept.which] * kept.valid, given["batched_scores"])
        np.testing.assert_array_equal(classes[kept.which], given["batched_classes"])
        kept = padded_nms(boxes, *rule)
        np.testing.assert_array_equal(boxes[kept.which] * kept.valid[:, None], given["padded_boxes"])
        np.testing.assert_array_equal(scores[kept.which] * kept.valid, given["padded_scores"])
        np.testing.assert_array_equal(kept.which[kept.valid], given["padded_idx"][kept.valid])


def test_roi_align_of_one_map(c_roi_align: Case | None) -> None:
    arrays = read(c_roi_align)
    expected = arrays["single_out"]
    pooled = roi_align(
        [channels_first(arrays["single_feature"][None])],
        tensor(arrays["single_boxes"])[None],
        [1],
        int(arrays["single_size"]),
        samples=int(arrays["single_sampling_ratio"]),
    )
    assert_near(pooled[0].view(expected.shape), expected)


def test_roi_align_of_a_pyramid(c_roi_align: Case | None) -> None:
    arrays = read(c_roi_align)
    strides = arrays["ml_strides"].tolist()
    boxes = tensor(arrays["ml_boxes"])
    levels = box_levels(boxes, strides) + int(np.log2(strides[0]))
    assert levels.tolist() == arrays["ml_level"].tolist()
    maps = [channels_first(arrays[f"ml_feature_stride{stride}"]) for stride in strides]
    for name, expected in below(arrays, "ml_out").items():
        pooled = roi_align(maps, boxes, strides, int(name))
        assert_near(pooled.view(expected.shape), expected)


def test_box_heads(d_detector_tiny: Case | None) -> None:
    """Detections and raw outputs of regions, by one head and by cascades."""
    arrays = read(d_detector_tiny)
    shared = below(arrays, "roi_heads/")
    size = shared["image_hw"][0].astype(int).tolist()
    for stages in cascades(arrays):
        own = below(arrays, f"roi_heads{stages}/")
        heads, pool = roi_heads(own, shared, stages)
        outputs = heads(pool, tensor(shared["proposals"]), size)
        assert_near(outputs[-1].logits, own["raw_class_outputs"])
        assert_near(outputs[-1].deltas, own["raw_box_outputs"])
        found = heads.detect(outputs, size, tensor(shared["proposal_scores"]))
        assert_near(found.boxes, own["detection_boxes"])
        assert_near(found.scores, own["detection_scores"])
        np.testing.assert_array_equal(found.classes + 1, own["detection_classes"])
        np.testing.assert_array_equal((found.scores > 0).sum(1), own["num_detections"])


def test_box_head(d_detector_tiny: Case | None) -> None:
    arrays = below(read(d_detector_tiny), "box_head/")
    regions = tensor(arrays["in"]).flatten(2, 3)
    heads = RoiHeads(head_config(arrays, regions.shape[-1]), regions.shape[-1])
    load(heads, "roi_heads", {f"p:box_head.0/{path}": array for path, array in below(arrays, "p:").items()})
    logits, deltas = heads.box_head[0](regions)
    assert_near(logits, arrays["class_logits"])
    assert_near(deltas, arrays["box_deltas"])


def test_proposal_head(d_detector_tiny: Case | None) -> None:
    arrays = below(read(d_detector_tiny), "centernet_head/")
    levels = [channels_first(level) for level in by_number(arrays, "in")]
    layers = len([name for name in arrays if re.match(r"p:bbox_tower/\d+/kernel", name)])
    width = arrays["p:agn_hm/kernel"].shape[2]
    head = CenterNetHead(ProposalConfig(width=width, num_layers=layers), levels[0].shape[1], len(levels))
    load(head, "proposal_generator", arrays)
    maps = head(levels)
    for number in range(len(levels)):
        assert_near(maps.heatmaps[number].movedim(1, -1), arrays[f"heatmap{number}"])
        assert_near(maps.reaches[number].movedim(1, -1), arrays[f"box_reg{number}"])


def test_proposals(c_centernet: Case | None) -> None:
    """Peaks, and what suppression leaves of the longest list of them."""
    arrays = read(c_centernet)
    strides = arrays["strides"].tolist()
    maps = proposal_maps(arrays)
    limits = sorted(int(name[5:].split("_")[0]) for name in arrays if re.fullmatch(r"peaks\d+_boxes", name))
    assert limits
    for limit in limits:
        peaks = find_peaks(maps, strides, limit)
        assert_near(peaks.boxes, arrays[f"peaks{limit}_boxes"])
        assert_near(peaks.scores, arrays[f"peaks{limit}_scores"])
        assert not arrays[f"peaks{limit}_classes"].any()
    expected = arrays["proposals_boxes"]
    kept = keep_proposals(find_peaks(maps, strides, limits[-1]), expected.shape[1], 0.9)
    assert_near(kept.boxes, expected)
    assert_near(kept.scores, arrays["proposals_scores"])


def test_backbone(d_detector_tiny: Case | None) -> None:
    arrays = below(read(d_detector_tiny), "backbone/")
    backbone = SimplePyramid(backbone_config(arrays), arrays["level0"].shape[-1]).eval()
    load(backbone, "backbone", arrays)
    images = channels_first(arrays["images"])
    assert_near(backbone.net(images).movedim(1, -1), arrays["vit_out"], 1e-4)
    levels = backbone(images)
    assert len(levels) == len(by_number(arrays, "level"))
    for number, level in enumerate(levels):
        assert_near(level.movedim(1, -1), arrays[f"level{number}"], 1e-4)


def test_final_detections(c_nms: Case | None) -> None:
    """Decoding, clipping, thresholds, suppression and filling, from stored scores."""
    arrays = read(c_nms)
    anchors, deltas = (tensor(arrays[f"final/{name}_yxyx"])[..., SWAPPED] for name in ("anchors", "deltas"))
    thresholds = sorted({match[1] for name in arrays if (match := re.match(r"final_thr([\d.]+)/", name))})
    assert thresholds
    for threshold in thresholds:
        expected = below(arrays, f"final_thr{threshold}/")
        limit = expected["detection_boxes"].shape[1]
        for image, (height, width) in enumerate(arrays["final/image_hw"]):
            boxes = clip_boxes(decode_boxes(deltas[image], anchors[image], BOX_WEIGHTS[0]), width, height)
            scores = tensor(arrays["final/class_scores"])[image, :, 1:]
            found = select_detections(boxes[None], scores[None], float(threshold), 0.5, limit)
            assert_near(found.boxes[0][:, SWAPPED], expected["detection_boxes"][image])
            assert_near(found.scores[0], expected["detection_scores"][image])
            np.testing.assert_array_equal(found.classes[0] + 1, expected["detection_classes"][image])
            assert (found.scores[0] > 0).sum() == expected["num_detections"][image]


def test_targets_of_cells(c_centernet: Case | None) -> None:
    arrays = read(c_centernet)
    strides = arrays["strides"].tolist()
    shapes = proposal_maps(arrays).shapes()
    assert_near(cell_centers(shapes, strides, torch.device("cpu")), arrays["grid"])
    wanted = cell_targets(tensor(arrays["gt_boxes"]), shapes, strides, arrays["fpn_range"].tolist())
    assert_near(wanted.heatmap[..., None], arrays["gt_heatmap"])
    assert ((wanted.heatmap == 1).numpy() == (arrays["gt_heatmap"][..., 0] == 1)).all()
    assert_near(wanted.reach, arrays["gt_reg"])


def test_losses_of_proposals(c_centernet: Case | None) -> None:
    arrays = read(c_centernet)
    maps = proposal_maps(arrays)
    strides, ranges = arrays["strides"].tolist(), arrays["fpn_range"].tolist()
    options = DetectionLossOptions()
    wanted = cell_targets(tensor(arrays["gt_boxes"]), maps.shapes(), strides, ranges)
    parts = proposal_loss(*maps.flat(), wanted, options)
    for name, part in zip(("pos_loss", "neg_loss", "reg_loss", "hm_norm", "reg_norm"), parts, strict=True):
        assert_near(part, arrays[f"loss_{name}"])
    total = options.heatmap_weight * (parts.positive + parts.negative) + options.reach_weight * parts.reach
    assert_near(total, arrays["loss_total_loss"])


def test_losses_of_regions(d_detector_tiny: Case | None) -> None:
    """From the stored regions and matches; and the matches and outputs themselves, which the weights must give."""
    arrays = read(d_detector_tiny)
    shared = below(arrays, "roi_heads/")
    compared = 0
    for stages in cascades(arrays):
        own = below(arrays, f"roi_heads{stages}/")
        heads, pool = roi_heads(own, shared, stages)
        for number in range(stages):
            stored = below(own, f"train_stage{number}_")
            if stored:
                assert_stage(heads, pool, number, stored, shared)
                compared += 1
    assert compared, "no stage was compared"


def assert_stage(heads: RoiHeads, pool: Pooling, number: int, stored: dict[str, Any], shared: dict[str, Any]) -> None:
    """One stage of box heads in training."""
    regions, weights = tensor(stored["proposals"]), BOX_WEIGHTS[number]
    threshold = heads.config.match_thresholds[number]
    matched = match_regions(regions, tensor(shared["gt_boxes"]), tensor(shared["gt_classes"]), threshold)
    np.testing.assert_array_equal(matched.classes, stored["matched_classes"])
    foreground = stored["matched_classes"] > 0
    np.testing.assert_array_equal(matched.boxes[foreground], stored["matched_boxes"][foreground])
    logits, deltas = heads.box_head[number](pool(regions, heads.config.resolution))
    assert_near(logits, stored["class_outputs"])
    assert_near(deltas, stored["box_outputs"])
    matched = matched._replace(boxes=tensor(stored["matched_boxes"]), classes=tensor(stored["matched_classes"]))
    assert_near(region_targets(regions, matched.boxes, weights), stored["box_targets"])
    stage = Stage(regions, tensor(stored["class_outputs"]), tensor(stored["box_outputs"]))
    loss = region_loss(stage, matched, weights)
    assert_near(loss.classes, stored["roi_cls_loss"])
    assert_near(loss.boxes, stored["roi_reg_loss"])
