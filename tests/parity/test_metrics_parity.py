"""Metrics of dense captions against the reference; METEOR and what is built on it where Java and the jar are there.

A case is known by the arrays it holds. Where Java is missing, what needs it is skipped, and each skip names its case.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onlooker.operators.caption.metrics.cider import cider
from onlooker.operators.caption.metrics.dense import VideoCaptions, evaluate_dense_captions, match_captions
from onlooker.operators.caption.metrics.detections import IOU_THRESHOLDS, interval_iou, score_detections
from onlooker.operators.caption.metrics.evaluator import evaluate_predictions
from onlooker.operators.caption.metrics.meteor import Meteor
from onlooker.operators.caption.metrics.paragraph import evaluate_paragraphs
from onlooker.operators.caption.metrics.ptb import tokenize
from onlooker.operators.caption.metrics.soda import align

from .goldens import Case, parametrize, require

PURE, JAVA = 1e-9, 1e-6
"""Tolerances: our own Python, and METEOR."""


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize(metafunc, "streaming_dvc", "metrics")


def given(case: Case, name: str) -> Any:
    """What a JSON array of the case holds."""
    return json.loads(str(case.arrays[name]))


def needs_java(name: str) -> bool:
    return "meteor" in name.lower() or "soda_c" in name.lower()


def compare(actual: dict[str, Any], expected: dict[str, Any], meteor: Meteor | None) -> None:
    """All expected values; those that need Java only where it is there."""
    for name, value in expected.items():
        if needs_java(name) and meteor is None:
            assert name not in actual, f"{name} was computed without METEOR"
            continue
        assert name in actual, f"{name} is missing"
        tolerance = JAVA if needs_java(name) else PURE
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=tolerance, err_msg=name)


def check_iou(case: Case, meteor: Meteor | None) -> None:
    actual = [interval_iou([one], [other])[0, 0] for one, other in case.arrays["intervals"]]
    np.testing.assert_allclose(actual, case.arrays["iou"], rtol=0, atol=PURE)


def check_alignment(case: Case, meteor: Meteor | None) -> None:
    total, pairs = align(case.arrays["scores"])
    assert total == pytest.approx(case.number("max_score"), abs=PURE)
    assert pairs == [tuple(pair) for pair in case.arrays["pairs"].tolist()]


def check_detections(case: Case, meteor: Meteor | None) -> None:
    thresholds = case.arrays["thresholds"].tolist() if case.has("thresholds") else IOU_THRESHOLDS
    found = score_detections(case.arrays["predicted"], case.arrays["gt"], case.arrays.get("splits"), thresholds)
    np.testing.assert_allclose(found.precision, case.arrays["precision"], rtol=0, atol=PURE)
    np.testing.assert_allclose(found.recall, case.arrays["recall"], rtol=0, atol=PURE)
    matrices = case.below("iou_matrix_split")
    assert matrices and {int(split) for split in matrices} == set(found.iou)
    for split, matrix in matrices.items():
        np.testing.assert_allclose(found.iou[int(split)], matrix, rtol=0, atol=PURE)


def check_matches(case: Case, meteor: Meteor | None) -> None:
    predicted, true = given(case, "predicted"), given(case, "gt")
    letters = [chr(ord("a") + i) for i in range(len(predicted))]
    video = VideoCaptions.make("v", predicted, letters, true, [f"true {i}" for i in range(len(true))])
    counts = given(case, "num_pairs_per_threshold")
    matches = match_captions(video, [float(t) for t in counts])
    assert [len(pairs) for pairs in matches] == list(counts.values())
    told = [sorted({letters[p] for p, g in pairs if g is not None}) for pairs in matches]
    assert told == [sorted(set(names)) for names in given(case, "matched_real_gt_per_threshold").values()]


def check_tokens(case: Case, meteor: Meteor | None) -> None:
    assert tokenize(given(case, "raw")) == given(case, "tokenized")


def check_caption_scores(case: Case, meteor: Meteor | None) -> None:
    true, told, order = given(case, "gts"), given(case, "res"), given(case, "key_order")
    references, hypotheses = [true[key] for key in order], [told[key][0] for key in order]  # tokenised, case kept
    mean, each = cider(hypotheses, references)
    actual: dict[str, Any] = {"cider": mean, "cider_each": each}
    if meteor is not None:
        actual |= {"meteor": meteor.corpus(hypotheses, references), "meteor_each": meteor.each(hypotheses, references)}
    compare(actual, {n: a for n, a in case.arrays.items() if n.startswith(("cider", "meteor"))}, meteor)


def check_paragraphs(case: Case, meteor: Meteor | None) -> None:
    actual = evaluate_paragraphs(given(case, "predicted"), given(case, "gt"), meteor=meteor)
    compare(actual, given(case, "result"), meteor)


def check_dataset(case: Case, meteor: Meteor | None) -> None:
    names = "keys", "predicted_segments", "predicted_captions", "gt_segments", "gt_captions", "splits"
    videos = [VideoCaptions.make(*row) for row in zip(*(given(case, name) for name in names), strict=True)]
    thresholds = [float(name.partition("@")[2]) for name in case.arrays if name.startswith("mean/Precision@")]
    scores = evaluate_dense_captions(videos, meteor=meteor, thresholds=thresholds)
    compare(scores.per_video, case.below("per_video/"), meteor)
    compare(scores.means(), case.below("mean/"), meteor)


def check_evaluator(case: Case, meteor: Meteor | None) -> None:
    scores = evaluate_predictions(given(case, "predictions"), given(case, "gt"), meteor=meteor)
    expected = given(case, "result")
    compare(scores.means(), expected, meteor)
    assert set(scores.means()) == {name for name in expected if meteor is not None or not needs_java(name)}


KINDS: list[tuple[set[str], Callable[[Case, Meteor | None], None]]] = [
    ({"intervals", "iou"}, check_iou),
    ({"scores", "max_score", "pairs"}, check_alignment),
    ({"predicted", "gt", "precision", "recall"}, check_detections),
    ({"predicted", "gt", "num_pairs_per_threshold", "matched_real_gt_per_threshold"}, check_matches),
    ({"raw", "tokenized"}, check_tokens),
    ({"gts", "res", "key_order", "cider"}, check_caption_scores),
    ({"predicted_segments", "predicted_captions", "gt_segments", "gt_captions", "splits", "keys"}, check_dataset),
    ({"gt", "predictions", "result"}, check_evaluator),
    ({"predicted", "gt", "result"}, check_paragraphs),
]
"""What a case holds, and what is then compared; the first kind that fits."""


def test_metrics(case: Case | None, meteor: Meteor | None) -> None:
    case = require(case, "metrics of dense captions")
    check = next((check for needed, check in KINDS if needed <= case.arrays.keys()), None)
    assert check is not None, f"{case} is of no kind that is known here; it holds {sorted(case.arrays)}"
    check(case, meteor)
    if meteor is None and check in (check_caption_scores, check_paragraphs, check_dataset, check_evaluator):
        pytest.skip(f"no Java or METEOR: METEOR and SODA_c of {case} were not compared, the rest was")
