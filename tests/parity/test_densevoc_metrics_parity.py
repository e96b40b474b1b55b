"""Metrics of Dense VOC against the reference: CHOTA, average precision of dense captions, grounding.

METEOR is compared where Java and the jar are there; where they are not, what is made of it is skipped by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onlooker.operators.caption.metrics.cider import cider
from onlooker.operators.caption.metrics.meteor import Meteor
from onlooker.operators.objects.metrics.chota import (
    HOTA_THRESHOLDS,
    Scorer,
    chota,
    cider_scorer,
    exact_scorer,
    meteor_scorer,
)
from onlooker.operators.objects.metrics.densecap import densecap
from onlooker.operators.objects.metrics.grounding import best_boxes, grounding_scores, sample_frames, score_answer, span
from onlooker.operators.objects.metrics.grounding import trim as trim_ends

from .dense_voc_metrics import answer, compare, groups, parametrize_worlds, spans, tube, world
from .goldens import Case, require

TOLERANCE = 1e-6
KINDS = {
    "test_chota": ("e_chota", "image_id"),
    "test_densecap": ("e_densecap_map", "image_id"),
    "test_grounding": ("e_vidstg", "num_videos"),
}


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        parametrize_worlds(metafunc, *KINDS[metafunc.definition.name])


def scorers_of(group: str, meteor: Meteor | None) -> dict[str, Scorer]:
    """`exact` groups compare texts letter by letter; in the others SPICE alone is replaced so."""
    if group.startswith("exact"):
        return {name: exact_scorer for name in ("cider", "meteor", "spice")}
    found: dict[str, Scorer] = {"cider": cider_scorer, "spice": exact_scorer}
    return found | ({"meteor": meteor_scorer(meteor)} if meteor is not None else {})


def without_meteor(arrays: dict[str, Any]) -> dict[str, Any]:
    """What can be compared where METEOR cannot run: its score and the means that hold it are left out."""
    return {name: a for name, a in arrays.items() if "meteor" not in name and name not in ("CapA", "CHOTA", "mAP")}


def test_chota(case: Case | None, meteor: Meteor | None) -> None:
    case = require(case, "CHOTA")
    scored, left_out = world(case), []
    for group, arrays in groups(case, "HOTA_TP").items():
        name, _, part = group.partition("/")
        scorers = scorers_of(name, meteor)
        count = max(np.size(value) for value in case.below(f"{name}/").values())
        scores = chota(scored, scorers, thresholds=(0.5,) if count == 1 else HOTA_THRESHOLDS)
        if part.startswith("video"):
            actual: dict[str, Any] = dict(scores.videos[int(part.removeprefix("video"))])
            arrays = {key: a for key, a in arrays.items() if key != "CapA"}  # the reference leaves it 0 here
        else:
            actual = scores.means() if part else scores.values
        if len(scorers) < 3:
            arrays = without_meteor(arrays)
            left_out.append(group)
        assert compare(actual, arrays, TOLERANCE) > 10
    if left_out:
        pytest.skip(f"no Java or METEOR: METEOR of {', '.join(left_out)} was not compared, the rest was")


def test_densecap(case: Case | None, meteor: Meteor | None) -> None:
    case = require(case, "average precision of dense captions")
    scored, left_out = world(case), []
    for group, arrays in groups(case, "mAP_detection").items():
        wanted = "mAP" in arrays
        scorer = meteor.each if meteor is not None and wanted else None
        actual = densecap(scored, scorer, ignore_empty="keepempty" not in group)
        if wanted and scorer is None:
            arrays = without_meteor(arrays)
            left_out.append(group)
        assert compare(actual, arrays, TOLERANCE) > 5
    check_pairs(case, meteor)
    if left_out:
        pytest.skip(f"no Java or METEOR: METEOR of {', '.join(left_out)} was not compared, the rest was")


def check_pairs(case: Case, meteor: Meteor | None) -> None:
    """The scorers by themselves."""
    told = [str(text) for text in case.arrays["meteor_pairs_candidate"]]
    true = [[str(text)] for text in case.arrays["meteor_pairs_reference"]]
    mean, each = cider(told, true)
    expected = {"mean": case.arrays["cider_pairs_mean"], "each": case.arrays["cider_pairs_score"]}
    compare({"mean": mean, "each": each}, expected, TOLERANCE)
    if meteor is not None:
        compare({"each": meteor.each(told, true)}, {"each": case.arrays["meteor_pairs_score"]}, TOLERANCE)


def test_grounding(case: Case | None) -> None:
    case = require(case, "grounding")
    videos = [Case(case.file, f"v{i}", case.below(f"v{i}/")) for i in range(case.number("num_videos"))]
    assert videos
    chosen = [best_boxes(video.arrays["scores"], video.arrays["likelihood"]) for video in videos]
    stops: set[float] = set()
    for video, (_, likelihood) in zip(videos, chosen, strict=True):
        rate, count, _, _ = video.arrays["meta_fps_nf_start_end"].tolist()
        frames = video.arrays["frame_ids"]
        assert sample_frames(0, count, rate) == frames[frames >= 0].tolist()
        told = spans(video)
        stops |= set(told)
        assert told == {p: span(frames, likelihood.tolist(), p if p >= 0 else None) for p in told}
    # The metrics were computed with one of the stopping values; the goldens do not say which.
    agreeing = [p for p in sorted(stops) if agrees(case, videos, [boxes for boxes, _ in chosen], p)]
    assert agreeing, f"the metrics agree with the spans of none of the stopping values {sorted(stops)}"


def agrees(case: Case, videos: list[Case], chosen: list[Any], stop: float) -> bool:
    pairs = []
    try:
        for video, boxes in zip(videos, chosen, strict=True):
            pairs.append((tube(video), answer(video, video.arrays["boxes"], boxes, spans(video)[stop])))
            expected = {name: video.arrays[name] for name in ("tiou", "viou", "gt_viou")}
            compare(score_answer(*pairs[-1]), expected, TOLERANCE)
        metric = {name.removeprefix("declarative_"): value for name, value in case.below("metric/").items()}
        return compare(grounding_scores(pairs), metric, TOLERANCE) > 6
    except AssertionError:
        return False


def test_trimming() -> None:
    """Every stored series of likelihoods is cut as the reference cuts it."""
    from .dense_voc_metrics import find_worlds

    cases = find_worlds("e_vidstg", "num_videos")
    series = [group for case in cases for group in groups(case, "lr").values()]
    assert series, "no golden case of trimming: nothing was compared"
    for arrays in series:
        assert trim_ends(arrays["scores"].tolist(), float(arrays["p"])) == tuple(arrays["lr"].tolist())
