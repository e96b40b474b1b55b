"""Metrics of dense captions: what they must say on cases one can think through, and that worse captions score lower."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from onlooker.operators.caption.metrics.activitynet import TimedCaption, join
from onlooker.operators.caption.metrics.cider import cider
from onlooker.operators.caption.metrics.dense import ABSENT, VideoCaptions, evaluate_dense_captions, match_captions
from onlooker.operators.caption.metrics.detections import f1_score, interval_iou, score_detections
from onlooker.operators.caption.metrics.meteor import Meteor, MeteorUnavailable
from onlooker.operators.caption.metrics.paragraph import evaluate_paragraphs
from onlooker.operators.caption.metrics.protocols import PROTOCOLS, evaluate, prepare
from onlooker.operators.caption.metrics.soda import align, soda_f1
from onlooker.operators.errors import OnlookerError

ACTS = ["cuts two red onions", "throws a ball to the dog", "rides a bike", "plays the piano", "pours milk into a bowl"]
PEOPLE = ["a man", "the chef", "a little girl", "an old woman", "two players"]


def story(videos: int = 6) -> dict[str, list[TimedCaption]]:
    """Three captions a video, all different."""
    rng = random.Random(0)
    texts = [f"{who} {what} near the {place}" for who in PEOPLE for what in ACTS for place in ("house", "river")]
    rng.shuffle(texts)
    it = iter(texts)
    spans = [(0.0, 10.0), (8.0, 20.0), (20.0, 31.5)]
    return {f"v{i}": [TimedCaption(*span, next(it)) for span in spans] for i in range(videos)}


def shuffled(told: dict[str, list[TimedCaption]]) -> dict[str, list[TimedCaption]]:
    """The same intervals with the captions of the next video."""
    names = list(told)
    return {
        name: [TimedCaption(a.start, a.end, b.text) for a, b in zip(told[name], told[names[i - 1]], strict=True)]
        for i, name in enumerate(names)
    }


def video(predicted: Any, told: list[str], true: Any, texts: list[str], splits: Any = None) -> VideoCaptions:
    return VideoCaptions.make("v", predicted, told, true, texts, splits)


def test_iou_of_reversed_and_touching_intervals() -> None:
    assert interval_iou([(10, 0)], [(0, 10)])[0, 0] == pytest.approx(1.0)
    assert interval_iou([(10, 0)], [(0, 10)], sort_ends=False)[0, 0] == 0.0
    assert interval_iou([(0, 5), (5, 10)], [(5, 10)]).tolist() == [[0.0, pytest.approx(1.0)]]
    assert interval_iou([], [(0, 1)]).shape == (1, 0)


def test_an_exact_ratio_stays_below_its_threshold() -> None:
    one = video([(0, 3)], ["x"], [(0, 10)], ["y"])
    assert match_captions(one, [0.3]) == [[(0, None)]]


def test_the_best_annotator_counts_at_each_threshold() -> None:
    found = score_detections([(0, 10), (50, 60)], [(0, 10), (50, 60), (0, 10), (90, 99)], [1, 1, 2, 2], [0.5])
    assert found.precision == (1.0,) and found.recall == (1.0,)
    assert score_detections([], [(0, 1)]).precision == (0.0,) * 4


def test_cider_of_one_pair_is_zero_and_of_equal_captions_ten() -> None:
    assert cider(["a b c d e"], [["a b c d e"]])[0] == 0.0
    mean, each = cider(["a b c d e", "f g h i j"], [["a b c d e"], ["f g h i j"]])
    assert mean == pytest.approx(10.0) and each == pytest.approx([10.0, 10.0])
    assert cider(["", "f g"], [[""], ["x y"]])[0] == 0.0


@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], []), (["a"], [[]])])
def test_cider_needs_a_reference_for_each(hypotheses: list[str], references: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="each needs one"):
        cider(hypotheses, references)


def test_alignment_keeps_the_order() -> None:
    assert align([[0.1, 0.9], [0.8, 0.1]])[0] == pytest.approx(0.9)  # not .9 + .8, whose lines cross
    assert align([[0.9, 0.1, 0.0], [0.0, 0.0, 0.8]]) == (pytest.approx(1.7), [(0, 0), (1, 2)])


def test_soda_is_one_for_the_same_story() -> None:
    import numpy as np

    assert soda_f1(np.eye(3), np.ones((3, 3))) == pytest.approx(1.0)
    assert soda_f1(np.eye(3)[::-1], np.ones((3, 3))) == pytest.approx(1 / 3)
    assert f1_score(0.0, 0.0) == 0.0


def test_predictions_that_meet_nothing_cost_and_missed_events_do_not() -> None:
    true = [(0, 10), (20, 30), (40, 50)], ["a man runs home", "a dog eats a cake", "she plays the piano"]
    right = evaluate_dense_captions([video([(0, 10), (20, 30)], ["a man runs home", "a dog eats a cake"], *true)])
    more = evaluate_dense_captions(
        [video([(0, 10), (20, 30), (80, 90)], ["a man runs home", "a dog eats a cake", "nobody is here"], *true)]
    )
    assert right.mean("CIDER") == pytest.approx(10.0) and more.mean("CIDER") == pytest.approx(20 / 3, rel=0.2)
    assert right.mean("Precision@0.9") == 1.0 and right.mean("Recall@0.9") == pytest.approx(2 / 3)


def test_the_filler_matches_no_caption() -> None:
    told = ["xqzjvkwqzx", "xqzjvkwqzxq"]
    scores = evaluate_dense_captions([video([(80, 90), (91, 99)], told, [(0, 10)], ["a"])])
    assert scores.mean("CIDER") == 0.0


def test_no_prediction_scores_zero() -> None:
    for told in ([], [""]):
        scores = evaluate_dense_captions([video([], told, [(0, 10)], ["a man runs"])])
        assert scores.mean("CIDER") == scores.mean("F1_Score") == 0.0
        assert scores.mean("n_preds") == len(told)


def test_without_meteor_its_scores_are_missing() -> None:
    scores = evaluate_dense_captions([video([(0, 1)], ["a"], [(0, 1)], ["a"])])
    assert not any(name == "METEOR" or name.startswith("SODA") for name in scores.per_video)
    assert scores.soda_c() is None
    timing = evaluate_dense_captions([video([(0, 1)], ["a"], [(0, 1)], ["a"])], captions=False)
    assert timing.per_video["SODA_c_1"] == [ABSENT] and "CIDER" not in timing.per_video


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (([(0, 1)], [], [(0, 1)], ["a"]), "1 predicted intervals and 0 captions"),
        (([], ["x"], [(0, 1)], ["a"]), "0 predicted intervals and 1 captions"),
        (([], [], [(0, 1)], []), "1 true intervals, 0 captions"),
        (([], [], [], []), "0 true intervals"),
        (([], [], [(0, 1)], ["a"], [1, 2]), "2 splits"),
        (([(0, float("nan"))], ["x"], [(0, 1)], ["a"]), "finite times"),
        (([(0, 1, 2)], ["x"], [(0, 1)], ["a"]), "shape"),
    ],
)
def test_lists_that_do_not_fit_are_said(parts: Any, says: str) -> None:
    with pytest.raises(OnlookerError, match=says):
        video(*parts)


def test_a_video_twice_and_none_at_all() -> None:
    one = video([], [], [(0, 1)], ["a"])
    with pytest.raises(OnlookerError, match="given twice"):
        evaluate_dense_captions([one, one])
    with pytest.raises(OnlookerError, match="no video"):
        evaluate_dense_captions([])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shuffled_captions_score_lower_at_the_same_f1(protocol: Any) -> None:
    true = story()
    right = evaluate(prepare(true, [true], protocol).videos, protocol)
    wrong = evaluate(prepare(shuffled(true), [true], protocol).videos, protocol)
    assert right.scores["CIDEr"] > 2 * wrong.scores["CIDEr"]
    assert right.scores["F1"] == wrong.scores["F1"] == pytest.approx(1.0)


def test_where_the_protocols_differ() -> None:
    true = {"a": [TimedCaption(0, 10, "a man runs"), TimedCaption(10, 20, "a café")], "b": [TimedCaption(0, 9, "x")]}
    told = {"a": [TimedCaption(10, 0, "a man runs"), TimedCaption(10, 20, "a café")], "b": []}
    reference = evaluate(prepare(told, [true], "reference").videos, "reference")
    public = evaluate(prepare(told, [true], "activitynet").videos, "activitynet")
    assert reference.scores["F1"] == pytest.approx(0.5)  # the mean of 1 and 0
    assert public.scores["precision"] == public.scores["recall"] == pytest.approx(0.25)  # reversed: met nothing
    assert public.scores["F1"] == pytest.approx(0.25)
    prepared = prepare(told, [true], "activitynet").videos[0]
    assert prepared.true_captions[1] == "a caf " and prepared.predicted_segments[0, 0] == 10.0
    many = {"a": [TimedCaption(0, 1, "x")] * 1200}
    assert len(prepare(many, [true], "activitynet").videos[0].predicted_captions) == 1000
    assert len(prepare(many, [true], "reference").videos[0].predicted_captions) == 1200


def test_join_numbers_annotators_and_drops_empty_truth() -> None:
    first = {"a": [TimedCaption(0, 1, "x"), TimedCaption(1, 2, " . ")], "b": [TimedCaption(0, 1, "")]}
    second = {"a": [TimedCaption(0.0000004, 2, "y")], "c": [TimedCaption(0, 1, "z")]}
    joined = join({"a": [], "q": []}, [first, second], unit=1e-6)
    assert [v.key for v in joined.videos] == ["a", "c"]
    assert joined.videos[0].splits.tolist() == [1, 2] and joined.videos[1].splits.tolist() == [2]
    assert joined.videos[0].true_segments.tolist() == [[0, 1_000_000], [0, 2_000_000]]
    assert (joined.unpredicted, joined.unknown, joined.untold) == (["c"], ["q"], ["b"])


def test_soda_of_annotators_leaves_out_what_they_did_not_see() -> None:
    from onlooker.operators.caption.metrics.dense import DenseScores

    scores = DenseScores(("a", "b"), {"SODA_c_1": [0.2, 0.4], "SODA_c_2": [0.5, ABSENT]})
    assert scores.soda_c() == pytest.approx(0.4) and scores.means()["SODA_c_2"] == pytest.approx(-0.25)
    only = DenseScores(("a",), {"SODA_c_1": [0.2], "SODA_c_2": [ABSENT]})
    assert only.soda_c() == pytest.approx(0.2)


def test_paragraphs_are_compared_by_letters_alone() -> None:
    told = ["A man runs 5 miles home!", "She's here, with the dog."]
    assert evaluate_paragraphs(told, [["a man runs miles home"], ["she s here with the dog"]]) == {
        "Para_CIDER": pytest.approx(10.0)
    }


@pytest.mark.slow
def test_meteor_and_soda_prefer_the_right_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Slow: METEOR loads its tables for some 20 s."""
    try:
        scorer = Meteor()
    except MeteorUnavailable as error:
        pytest.skip(str(error))
    true = story()
    with scorer as meteor:
        right = evaluate(prepare(true, [true], "reference").videos, meteor=meteor).scores
        wrong = evaluate(prepare(shuffled(true), [true], "reference").videos, meteor=meteor).scores
        assert meteor.each(["a dog runs", ""], [["a dog runs"], ["a dog"]]) == [pytest.approx(1.0), 0.0]
        assert meteor.corpus(["a ||| b"], [["a b"]]) > 0
    assert right["METEOR"] > 1.5 * wrong["METEOR"] and right["SODA_c"] > 1.5 * wrong["SODA_c"]
    json.dumps(right)
