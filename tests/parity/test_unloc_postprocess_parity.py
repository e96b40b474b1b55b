"""UnLoc's way from head outputs to suppressed segments against the reference and TensorFlow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from onlooker.operators.localize.unloc.decoding import (
    Detections,
    decode_detections,
    decode_moments,
    suppress_detections,
    suppress_moments,
)
from onlooker.operators.localize.unloc.nms import NmsOptions, soft_nms
from onlooker.operators.localize.unloc.sampling import Sampling

from .goldens import Case, require
from .unloc_tables import decoding_of, find_tables, parametrize_tables, settings

SECONDS = 1e-3
SCORE = 1e-5


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_tables(metafunc, "postprocess", tal="tal", mr="mr", nms="nms")
    parametrize_tables(metafunc, "labels", linspace="linspace")


def options_of(given: dict[str, Any]) -> NmsOptions:
    names = {
        "soft_nms_sigma": "sigma",
        "score_threshold": "score_threshold",
        "iou_threshold": "iou_threshold",
        "max_detections": "max_output",
    }
    return NmsOptions(**{ours: given[theirs] for theirs, ours in names.items() if theirs in given})


def assert_detections(found: Detections, case: Case, name: str) -> None:
    np.testing.assert_array_equal(found.classes, case.arrays[f"out/{name}_class"])
    assert_moments(
        found.scores, found.segments, case.arrays[f"out/{name}_score"], case.arrays[f"out/{name}_segments_sec"]
    )


def assert_moments(scores: Any, segments: Any, expected_scores: Any, expected_segments: Any) -> None:
    assert len(scores) == len(expected_scores)
    np.testing.assert_allclose(scores, expected_scores, atol=SCORE, rtol=0)
    np.testing.assert_allclose(segments, expected_segments.reshape(-1, 2), atol=SECONDS, rtol=0)


def test_detections(tal: Case | None) -> None:
    case = require(tal, "temporal localization")
    given, arrays = settings(case, "args_json"), case.arrays
    before = {name: array.copy() for name, array in arrays.items()}
    found = decode_detections(
        arrays["in/class_probs"],
        arrays["in/displacements"],
        arrays["in/input_mask"].astype(bool),
        *decoding_of(given, len(arrays["in/class_probs"])),
        seconds_per_frame=given.get("secs_per_timestep", 1.0),
        score_threshold=given.get("score_threshold", -np.inf),
    )
    assert_detections(found, case, "pre_nms")
    options = options_of(given["nms"])
    assert_detections(suppress_detections(found, options), case, "agnostic")
    assert_detections(suppress_detections(found, options, per_class=True), case, "multiclass")
    for name, array in before.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=f"{name} was changed")


def test_moments(mr: Case | None) -> None:
    case = require(mr, "moment retrieval")
    given, arrays = settings(case, "args_json"), case.arrays
    captions = arrays["in/caption_mask"].astype(bool)
    found = decode_moments(
        arrays["in/class_probs"][captions],
        arrays["in/displacements"][captions],
        arrays["in/input_mask"].astype(bool),
        *decoding_of(given, arrays["in/class_probs"].shape[1]),
        seconds_per_frame=given.get("secs_per_timestep", 1.0),
    )
    assert len(found) == arrays["out/num_captions"]
    for i, one in enumerate(found):
        assert_moments(*one, arrays["out/pre_nms_score"][i], arrays["out/pre_nms_segments_sec"][i])
    for i, one in enumerate(suppress_moments(found, options_of(given["nms"]))):
        assert_moments(*one, arrays[f"out/nms_score_{i}"], arrays[f"out/nms_segments_sec_{i}"])


def test_suppression(nms: Case | None) -> None:
    case = require(nms, "suppression")
    options = options_of(settings(case, "args_json"))
    chosen, scores = soft_nms(case.arrays["in/segments"], case.arrays["in/scores"], options)
    assert chosen.tolist() == case.arrays["out/selected_index"].tolist()
    np.testing.assert_allclose(scores, case.arrays["out/selected_score"], atol=SCORE, rtol=0)


def test_linspace(linspace: Case | None) -> None:
    case = require(linspace, "sampled frames")
    for name, expected in case.arrays.items():
        total, frames = map(int, name.split("_"))
        assert Sampling("linspace", frames, total).indexes().tolist() == expected.tolist()


def test_another_decay_is_noticed() -> None:
    """The crippled twin: exp(-iou^2 / sigma), as in the paper of Soft-NMS, is not what TensorFlow computes."""
    cases = [(case, options_of(settings(case, "args_json"))) for case in find_tables("postprocess", "nms")]
    soft = [(case, options) for case, options in cases if options.sigma > 0]
    assert soft, "no golden case of soft suppression"

    def differs(case: Case, options: NmsOptions) -> bool:
        twin = replace(options, sigma=options.sigma / 2)
        scores = soft_nms(case.arrays["in/segments"], case.arrays["in/scores"], twin)[1]
        expected = case.arrays["out/selected_score"]
        return len(scores) != len(expected) or bool(np.abs(scores - expected).max() > 10 * SCORE)

    assert any(differs(case, options) for case, options in soft)
