"""UnLoc's metrics against the reference."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onlooker.operators.localize.metrics.detection import DetectionScores, VideoSegments, detection_scores
from onlooker.operators.localize.metrics.frames import (
    class_average_precision,
    frame_accuracy,
    top_one_correct,
    unique_videos,
)
from onlooker.operators.localize.metrics.recall import recall_at, segment_iou

from .goldens import Case, require
from .unloc_tables import find_tables, parametrize_tables, part

METRIC = 1e-6
HEADLINE = "eval_detection/mAP@0.5:0.05:0.95IOU"


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_tables(metafunc, "metrics", recall="recall", tal_map="tal_map", pair_iou="pair_iou", top1="top1")
    parametrize_tables(metafunc, "metrics", frames="as")


def ragged(case: Case, name: str, offsets: str) -> list[NDArray[Any]]:
    """The rows of a concatenated array, per video or text."""
    return np.split(case.arrays[f"in/{name}"], case.arrays[f"in/{offsets}"][1:-1])


def near(expected: float) -> Any:
    return pytest.approx(expected, abs=METRIC, nan_ok=True)


def test_recall(recall: Case | None) -> None:
    case = require(recall, "recall")
    truth = case.arrays["in/gt"]
    predicted, scores = ragged(case, "pred_segments_cat", "offsets"), ragged(case, "pred_scores_cat", "offsets")
    for key, expected in zip(case.arrays["out/keys"], case.arrays["out/values"], strict=True):
        match = re.fullmatch(r"R@(\d+),IOU=([\d.]+)", str(key))
        assert match, key
        rank, threshold = int(match[1]), float(match[2])
        assert recall_at(truth, predicted, scores, [rank], [threshold])[rank, threshold] == near(expected), key
    overlaps = [segment_iou(one, segments)[0] for one, segments in zip(truth, predicted, strict=True)]
    np.testing.assert_allclose(np.concatenate(overlaps), case.arrays["out/pairwise_iou_cat"], atol=METRIC, rtol=0)


def test_pairs(pair_iou: Case | None) -> None:
    case = require(pair_iou, "overlaps")
    found = segment_iou(case.arrays["in/a"], case.arrays["in/b"], epsilon=1e-8)
    np.testing.assert_allclose(found, case.arrays["out/iou"], atol=METRIC, rtol=0)


def scores_of(case: Case) -> DetectionScores:
    rows = [
        *(ragged(case, name, "gt_offsets") for name in ("gt_segments", "gt_classes")),
        *(ragged(case, name, "det_offsets") for name in ("det_segments", "det_scores", "det_classes")),
    ]
    videos = [VideoSegments(*row) for row in zip(*rows, strict=True)]
    return detection_scores(videos, int(case.arrays["in/num_classes"]))


def value_of(scores: DetectionScores, key: str) -> float:
    """What a name of the reference's stands for: `eval_detection/mAP@0.5:0.05:0.95IOU` and others."""
    kind, _, name = key.partition("/")
    measure, _, at = name.partition("@")
    if measure == "avgAP":
        return float(scores.per_class()[int(at)])
    assert measure == "mAP", key
    first, *rest = (float(number) for number in at.removesuffix("IOU").split(":"))
    thresholds = np.arange(first, rest[1] + rest[0] / 2, rest[0]) if rest else [first]
    return scores.mean(thresholds, present_only=kind.endswith("present_classes"))


def test_detections(tal_map: Case | None) -> None:
    case = require(tal_map, "mean average precision")
    scores = scores_of(case)
    for key, expected in zip(case.arrays["out/keys"], case.arrays["out/values"], strict=True):
        assert value_of(scores, str(key)) == near(expected), key


def test_frames(frames: Case | None) -> None:
    case = require(frames, "frame accuracy")
    logits, labels = case.arrays["in/logits"], case.arrays["in/labels"]
    told = [name for name in case.arrays if name.startswith("out/frame_accuracy_thr")]
    assert told
    for name in told:
        threshold = float(name.removeprefix("out/frame_accuracy_thr"))
        assert frame_accuracy(logits, labels, threshold) == near(case.arrays[name].item()), name
    found = class_average_precision(logits, labels)
    for key, expected in zip(case.arrays["out/map_keys"], case.arrays["out/map_values"], strict=True):
        index = re.match(r"per_class_average_precision_(\d+)", str(key))
        assert (found[int(index[1])] if index else found.mean()) == near(expected), key


def test_top_one(top1: Case | None) -> None:
    case = require(top1, "the best class")
    expected = case.arrays["out/correct"]
    right = top_one_correct(case.arrays["in/logits"], case.arrays["in/targets"])
    found = right * case.arrays["in/weights"].reshape(case.arrays["in/weights"].shape + (1,) * (right.ndim - 2))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=METRIC, rtol=0)


def test_duplicates() -> None:
    """Only some sets of goldens have these cases; tests/localize has one of our own."""
    for case in find_tables("postprocess", "dedup"):
        vids, present, frames = part(case, "in/vid"), part(case, "in/batch"), part(case, "in/frame", "in/input")
        assert vids is not None and present is not None
        rows = unique_videos(vids, present)
        for name in ("logit", "label", "vid"):
            given, expected = part(case, f"in/{name}"), part(case, f"out/{name}", f"out/deduped_{name}")
            assert given is not None and expected is not None, name
            found = given[rows]
            if frames is not None and name != "vid":
                found = np.concatenate([row[mask > 0] for row, mask in zip(found, frames[rows], strict=True)])
            assert found.tolist() == expected.tolist(), name


def test_matching_without_order_is_noticed() -> None:
    """The crippled twin: detections by ascending score."""
    cases = find_tables("metrics", "tal_map", "in/det_scores")
    assert cases, "no golden case of mean average precision"

    def differs(case: Case) -> bool:
        expected = value_of(scores_of(case), HEADLINE)
        case.arrays["in/det_scores"] = -case.arrays["in/det_scores"]
        return abs(value_of(scores_of(case), HEADLINE) - expected) > METRIC

    assert any(differs(case) for case in cases)
