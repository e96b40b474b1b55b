"""CHOTA and the scores by the kept library, on worlds whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest

from onlooker.operators.objects.metrics.chota import HOTA_THRESHOLDS, chota, cider_scorer, exact_scorer
from onlooker.operators.objects.metrics.mot import mot_scores
from onlooker.operators.objects.metrics.world import Boxes, World

from .metrics_worlds import Row, crowd, walk, world

TRUTH = [*walk(10, 1, 0, "a dog runs"), *walk(10, 2, 100, "a man walks")]


def renamed(rows: list[Row], track: int, caption: str | None = None) -> list[Row]:
    return [(frame, box, track, text if caption is None else caption) for frame, box, _, text in rows]


def test_what_is_all_true_scores_one() -> None:
    scores = chota(world(TRUTH, TRUTH, 10), {"exact": exact_scorer}).means()
    assert all(scores[name] == pytest.approx(1) for name in ("DetA", "AssA", "LocA", "HOTA", "CapA", "CHOTA"))
    assert scores["HOTA_TP"] == 20 == scores["TP_with_caps"] and scores["HOTA_FN"] == 0 == scores["HOTA_FP"]


def test_each_fault_costs_its_own_part() -> None:
    """A lost object costs detection, a changed identity association, a wrong caption captions; nothing else."""
    lost = chota(world(TRUTH, TRUTH[:10], 10), {"exact": exact_scorer}).means()
    assert (lost["DetA"], lost["AssA"], lost["CapA"]) == pytest.approx((0.5, 1, 1))
    switched = [*TRUTH[:5], *renamed(TRUTH[5:10], 3), *TRUTH[10:]]
    broken = chota(world(TRUTH, switched, 10), {"exact": exact_scorer}).means()
    assert (broken["DetA"], broken["AssA"], broken["CapA"]) == pytest.approx((1, 0.75, 1))
    assert broken["HOTA"] == pytest.approx(np.sqrt(0.75)) and broken["CHOTA"] == pytest.approx(np.cbrt(0.75))
    mute = chota(world(TRUTH, [*TRUTH[:10], *renamed(TRUTH[10:], 2, "a cat")], 10), {"exact": exact_scorer}).means()
    assert (mute["DetA"], mute["AssA"], mute["CapA"]) == pytest.approx((1, 1, 0.5))


def test_captions_that_nobody_wrote_do_not_count() -> None:
    """A true object without caption leaves CapA to the others; without any caption CapA is 1 and counts nothing."""
    some = [*TRUTH[:10], *renamed(TRUTH[10:], 2, "")]
    scores = chota(world(some, TRUTH, 10), {"exact": exact_scorer}).means()
    assert scores["TP_with_caps"] == 10 and scores["CapA"] == pytest.approx(1)
    bare = chota(world(renamed(TRUTH, 1, ""), TRUTH, 10), {"exact": exact_scorer}).means()
    assert bare["TP_with_caps"] == 0 and bare["CapA"] == 1
    assert "CapA" not in chota(world(TRUTH, TRUTH, 10), {}).means()


def test_scores_at_the_threshold_are_left_out() -> None:
    told = world(TRUTH, TRUTH, 10, scores=[0.5] * 10 + [0.51] * 10)
    assert chota(told, {}).means()["HOTA_TP"] == 10
    assert chota(told, {}, score=0.4).means()["HOTA_TP"] == 20


def test_worlds_without_truth_or_answer() -> None:
    empty = chota(world(TRUTH, [], 10), {"cider": cider_scorer}).means()
    assert empty["HOTA_FN"] == 20 and empty["CHOTA"] == 0 == empty["HOTA"]
    wrong = chota(world([], TRUTH, 10), {"cider": cider_scorer}).means()
    assert wrong["HOTA_FP"] == 20 and wrong["CHOTA"] == 0
    nothing = World((), Boxes.make([], []), Boxes.make([], []))
    assert chota(nothing, {}).means()["HOTA"] == 0


def test_videos_are_apart() -> None:
    """The same identity in two videos is two objects, and each video has its own CIDEr."""
    far = [(10 + frame, box, track, text) for frame, box, track, text in TRUTH]
    both = World(("a",) * 10 + ("b",) * 10, *(world([*TRUTH, *far], [*TRUTH, *far], 20).truth,) * 2)
    scores = chota(both, {"cider": cider_scorer})
    assert scores.means()["AssA"] == pytest.approx(1)
    assert set(scores.videos) == {"a", "b"} and scores.videos["a"]["HOTA_TP"] == 20
    alone = chota(world(TRUTH, TRUTH, 10), {"cider": cider_scorer}).means()
    assert scores.means()["CapA-cider"] == pytest.approx(alone["CapA-cider"])


def test_a_box_of_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="a frame that is none of the 10"):
        world(TRUTH, [(10, (0, 0, 1, 1), 1, "")], 10)
    with pytest.raises(ValueError, match="they should be of one length"):
        Boxes.make([0, 1], [[0, 0, 1, 1]])


def test_our_hota_is_that_of_the_kept_library() -> None:
    """Two codes of one definition, on crowds with misses, false identities and moved boxes."""
    pytest.importorskip("trackers", reason="the kept library of tracking scores is not installed")
    for seed in range(3):
        scene = crowd(np.random.default_rng(seed))
        ours, kept = chota(scene, {}, thresholds=HOTA_THRESHOLDS).means(), mot_scores(scene)
        assert 0.2 < kept["HOTA"] < 0.95 and kept["IDSW"] > 0
        for name in ("HOTA", "DetA", "AssA"):
            assert ours[name] == pytest.approx(kept[name], abs=1e-6), name


def test_the_kept_library_counts_switches() -> None:
    pytest.importorskip("trackers", reason="the kept library of tracking scores is not installed")
    perfect = mot_scores(world(TRUTH, TRUTH, 10))
    assert perfect["MOTA"] == 1 == perfect["IDF1"] and perfect["IDSW"] == 0
    switched = mot_scores(world(TRUTH, [*TRUTH[:5], *renamed(TRUTH[5:10], 3), *TRUTH[10:]], 10))
    assert switched["IDSW"] == 1 and switched["IDF1"] == pytest.approx(0.75)
