"""Average precision and recall against pycocotools, and the intervals."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from onlooker.operators.objects.metrics.detection import (
    THRESHOLDS,
    Detected,
    Matches,
    average_precision,
    average_recall,
    bootstrap,
    match_image,
)


def scene(rng: np.random.Generator, *, crowds: bool = True) -> Detected:
    """True boxes, detections near some of them, several on one, false ones, scores that tie."""
    count = int(rng.integers(0, 6))
    corner = rng.uniform(0, 60, (count, 2))
    truth = np.concatenate([corner, corner + rng.uniform(4, 40, (count, 2))], axis=1)
    near = truth[rng.integers(0, count, 9)] + rng.normal(0, 2.5, (9, 4)) if count else np.zeros((0, 4))
    corner = rng.uniform(0, 60, (4, 2))
    boxes = np.concatenate([near, np.concatenate([corner, corner + rng.uniform(4, 40, (4, 2))], axis=1), truth[:1]])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = rng.integers(0, 20, len(boxes)) / 20
    return Detected(truth, boxes, scores, rng.random(count) < 0.25 if crowds else None)


@pytest.fixture(scope="module")
def scenes() -> list[Detected]:
    rng = np.random.default_rng(5)
    return [scene(rng) for _ in range(40)]


def by_pycocotools(scenes: list[Detected]) -> Any:
    """COCOeval of one class; its own rows of numbers."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth = [
        {"image_id": i + 1, "category_id": 1, "bbox": sizes(box), "area": 1.0, "iscrowd": int(crowd)}
        for i, image in enumerate(scenes)
        for box, crowd in zip(np.asarray(image.truth), np.asarray(image.crowd), strict=True)
    ]
    told = [
        {"image_id": i + 1, "category_id": 1, "bbox": sizes(box), "score": float(score)}
        for i, image in enumerate(scenes)
        for box, score in zip(np.asarray(image.boxes), np.asarray(image.scores), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = coco.COCO()
        judge.dataset = {
            "info": {},
            "images": [{"id": i + 1} for i in range(len(scenes))],
            "annotations": [one | {"id": k + 1} for k, one in enumerate(truth)],
            "categories": [{"id": 1}],
        }
        judge.createIndex()
        evaluation = cocoeval.COCOeval(judge, judge.loadRes(told), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def sizes(box: Any) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


@pytest.mark.parametrize("most", [100, 10, 1])
def test_as_pycocotools(scenes: list[Detected], most: int) -> None:
    """All thresholds, with crowds, ties and detections beyond the limit."""
    found = by_pycocotools(scenes)
    column = [1, 10, 100].index(most)
    matched = [match_image(image, most=most) for image in scenes]
    expected = found["precision"][:, :, 0, 0, column].mean(axis=1)
    assert 0.1 < expected[0] < 0.99 and expected[-1] < expected[0]
    actual = [average_precision(matched, row) for row in range(len(THRESHOLDS))]
    np.testing.assert_allclose(actual, expected, atol=1e-9)
    assert average_recall(matched) == pytest.approx(found["recall"][:, 0, 0, column].mean(), abs=1e-9)


def test_crowds_are_neither_right_nor_wrong() -> None:
    """A detection inside a crowd costs nothing; outside it is wrong."""
    truth = [[0, 0, 10, 10], [50, 50, 100, 100]]
    inside = Detected(truth, [[60, 60, 70, 70], [0, 0, 10, 10]], [0.9, 0.8], [False, True])
    outside = Detected(truth, [[20, 20, 30, 30], [0, 0, 10, 10]], [0.9, 0.8], [False, True])
    assert average_precision([match_image(inside)]) == 1
    assert average_precision([match_image(outside)]) == pytest.approx(0.5)
    assert match_image(inside).truth == 1


def test_nothing_true_and_nothing_found() -> None:
    empty = match_image(Detected([], [], []))
    assert np.isnan(average_precision([empty])) and np.isnan(average_recall([empty]))
    missed = match_image(Detected([[0, 0, 1, 1]], [], []))
    assert average_precision([empty, missed]) == 0 == average_recall([empty, missed])
    assert average_precision([match_image(Detected([[0, 0, 1, 1]], [[0, 0, 1, 1]], [0.1])), empty]) == 1


def test_the_interval_holds_the_figure_and_narrows_with_pictures(scenes: list[Detected]) -> None:
    matched = [match_image(image) for image in scenes]

    def widths(images: list[Matches]) -> list[float]:
        intervals = bootstrap(images, average_precision, average_recall, rounds=100)
        assert all(one.low <= one.value <= one.high for one in intervals)
        return [one.high - one.low for one in intervals]

    few, many = widths(matched), widths(matched * 9)
    assert all(0 < b < a / 2 for a, b in zip(few, many, strict=True))
    again = bootstrap(matched, average_precision, rounds=50)
    assert again == bootstrap(matched, average_precision, rounds=50), "the seed fixes the drawings"
    with pytest.raises(ValueError, match="no pictures"):
        bootstrap([], average_precision)
