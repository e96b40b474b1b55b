"""Average precision of captioned boxes, and grounding, on cases that can be told by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from onlooker.operators.objects.metrics.densecap import densecap
from onlooker.operators.objects.metrics.grounding import (
    Answer,
    Tube,
    best_boxes,
    grounding_scores,
    sample_frames,
    score_answer,
    span,
    trim,
)

from .metrics_worlds import Row, walk, world

TRUTH = [*walk(4, 1, 0, "a dog runs"), *walk(4, 2, 100, "a man walks")]


def same(told: Sequence[str], true: Sequence[Sequence[str]]) -> list[float]:
    """In place of METEOR: .2 for a text that is one of the true ones."""
    return [0.2 * (text in texts) for text, texts in zip(told, true, strict=True)]


def test_captions_decide_beyond_their_threshold() -> None:
    scores = densecap(world(TRUTH, TRUTH, 4), same)
    assert scores["mAP_detection"] == 1 == scores["mAP_iou0.7_meteor0.15"]
    assert scores["mAP_iou0.7_meteor0.20"] == 0 == scores["mAP_iou0.3_meteor0.25"], "more than the threshold is asked"
    assert scores["mAP"] == pytest.approx(4 / 6)
    mute = densecap(world(TRUTH, [(f, b, t, "x") for f, b, t, _ in TRUTH], 4), same)
    assert mute["mAP"] == 0 and mute["mAP_detection"] == 1
    assert "mAP" not in densecap(world(TRUTH, TRUTH, 4))


def test_the_first_claim_counts_even_if_it_is_poor() -> None:
    """The best box of the frame claims what it overlaps most; the better one that comes later is wrong."""
    truth: list[Row] = [(0, (0, 0, 10, 10), 1, "a")]
    told: list[Row] = [(0, (0, 0, 10, 4), 1, "a"), (0, (0, 0, 10, 10), 1, "a")]
    scores = densecap(world(truth, told, 1, scores=[0.9, 0.8]))
    assert scores["mAP_detection_iou0.4"] == 1 and scores["mAP_detection_iou0.5"] == 0


def test_true_boxes_that_overlap_are_one() -> None:
    truth: list[Row] = [(0, (0, 0, 10, 10), 1, "a dog"), (0, (0, 0, 10, 9), 2, "a hound"), (0, (50, 0, 5, 5), 3, "b")]
    scores = densecap(world(truth, [(0, (0, 0, 10, 9.5), 1, "a hound"), (0, (50, 0, 5, 5), 3, "b")], 1), same)
    assert scores["num_gt_after_merge"] == 2 and scores["mAP_iou0.7_meteor0.15"] == 1


def test_empty_captions() -> None:
    """Whatever is said of a box without caption is right, or such boxes are not asked for."""
    truth = [*TRUTH[:4], *[(f, b, t, "") for f, b, t, _ in TRUTH[4:]]]
    told = [*TRUTH[:4], *[(f, b, t, "nonsense") for f, b, t, _ in TRUTH[4:]]]
    assert densecap(world(truth, told, 4), lambda a, b: [float(x in y) for x, y in zip(a, b, strict=True)])["mAP"] == 1
    asked = densecap(world(truth, told[:4], 4), ignore_empty=False)
    assert asked["mAP_detection"] == 1
    assert densecap(world(truth, told[:4], 4))["mAP_detection"] == pytest.approx(0.51)


def test_changes_of_a_caption_are_counted() -> None:
    flicker = [(f, b, t, f"{text} {f % 2}") for f, b, t, text in TRUTH]
    assert densecap(world(TRUTH, TRUTH, 4))["cap_switch"] == 0
    assert densecap(world(TRUTH, flicker, 4))["cap_switch"] == pytest.approx(6 / 8)
    unsure = world(TRUTH, flicker, 4, scores=[0.4] * 8)
    assert densecap(unsure)["cap_switch"] == 0, "boxes below .5 have no say"


def test_nothing_told() -> None:
    assert densecap(world(TRUTH, [], 4), same) == pytest.approx(
        {name: 0 for name in densecap(world(TRUTH, TRUTH, 4), same)} | {"num_gt_after_merge": 8}
    )


BOX = (10.0, 10.0, 30.0, 50.0)
FRAMES = list(range(0, 40, 5))


def test_grounding_asks_where_and_when() -> None:
    tube = Tube(FRAMES, 10, 30, dict.fromkeys(FRAMES, BOX))
    right = score_answer(tube, Answer(10, 30, dict.fromkeys(FRAMES, BOX)))
    assert all(value == 1 for value in right.values())
    late = score_answer(tube, Answer(20, 40, dict.fromkeys(FRAMES, BOX)))
    assert late["tiou"] == pytest.approx(1 / 3) and late["viou"] == pytest.approx(2 / 6) and late["gt_viou"] == 1
    assert late["viou@0.3"] == 1 and late["viou@0.5"] == 0
    beside = score_answer(tube, Answer(10, 30, dict.fromkeys(FRAMES, (60.0, 60.0, 70.0, 70.0))))
    assert beside["tiou"] == 1 and beside["viou"] == 0 == beside["gt_viou"]
    never = score_answer(tube, Answer(35, 36, {}))
    assert never["tiou"] == 0 == never["viou"] == never["gt_viou"]
    pairs = [(tube, Answer(10, 30, dict.fromkeys(FRAMES, BOX))), (tube, Answer(35, 36, {}))]
    assert grounding_scores(pairs)["viou"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no sentences"):
        grounding_scores([])


def test_frames_without_boxes_answer_nothing() -> None:
    boxes, likelihood = best_boxes([[0.9, 0.5], [-1, -1], [0.2, -1]], [[0.1, 0.3], [0.9, 0.9], [0.4, 0.8]])
    assert boxes.tolist() == [1, -1, 0] and likelihood.tolist() == [0.3, -1, 0.4]
    assert best_boxes([[], []], [[], []])[0].tolist() == [-1, -1]


def test_ends_are_cut_off_while_the_mean_rises() -> None:
    assert trim([0.1, 0.9, 0.8, 0.0]) == (1, 2)
    assert trim([0.1, 0.9, 0.8, 0.0], 0.05) == (0, 2), "what is likely enough stays"
    assert trim([0.5]) == (0, 0) and trim([-1.0, -1.0]) == (0, 1)
    assert span([0, 6, 12, -1], [0.1, 0.9, 0.8, -1.0]) == (0, 12)
    assert span([0, 6, 12, 18], [0.1, 0.9, 0.8, 0.0], 1.0) == (6, 12)


def test_frames_are_thinned() -> None:
    assert sample_frames(0, 30, 30) == [0, 6, 12, 18, 24]
    assert len(sample_frames(0, 9000, 30)) == 200
    with pytest.raises(ValueError, match="5 frames a second of a video that has 4"):
        sample_frames(0, 10, 4)
