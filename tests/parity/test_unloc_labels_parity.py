"""UnLoc's label assignment, masks and sampled clips against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onlooker.operators.localize.unloc.sampling import Anchors, Sampling, anchors, input_mask
from onlooker.training.localize_labels import (
    LabelOptions,
    Labels,
    caption_mask,
    class_labels,
    frame_labels,
    moment_labels,
)

from .goldens import Case, require
from .unloc_tables import find_tables, parametrize_tables, settings

DISPLACEMENT = 1e-4
"""Steps; the reference is float32 too, at distances of up to some thousand frames."""


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_tables(metafunc, "labels", tal="tal", mr="mr", frames="as")


def sampling_of(given: dict[str, Any]) -> Sampling:
    """Training clips have a random offset, which the goldens do not show: all are cut as for testing."""
    strategy = given.get("sampling_strategy", "random")
    assert strategy == "linspace" or not given.get("is_training", False), "a random offset cannot be compared"
    return Sampling(strategy, given["num_frames"], given["total_frames"], given.get("stride", 1))


def options_of(given: dict[str, Any]) -> LabelOptions:
    ranges = given.get("regression_ranges") or [(0.0, np.inf)] * given.get("levels", 1)
    return LabelOptions(
        tuple((float(low), float(high)) for low, high in ranges),
        given.get("downsample_stride", 2),
        given.get("radius"),
        given.get("normalize", False),
    )


def steps_of(given: dict[str, Any]) -> Anchors:
    return anchors(given["num_frames"], given.get("levels", 1), given.get("downsample_stride", 2))


def segments_of(case: Case) -> NDArray[np.int64]:
    return np.stack([case.arrays["in/start"], case.arrays["in/end"]], axis=-1)


def detections_of(case: Case, options: LabelOptions) -> Labels:
    given = settings(case, "args_json")
    return class_labels(
        segments_of(case),
        case.arrays["in/label_index"],
        given["num_classes"],
        sampling_of(given),
        options,
        across_classes=given.get("min_displacements_across_class", False),
    )


def assert_labels(found: Labels, case: Case) -> None:
    expected = case.arrays["out/label"]
    np.testing.assert_array_equal(found.positive, expected.reshape(found.positive.shape))
    assert found.displacements.dtype == np.float32
    np.testing.assert_allclose(found.displacements, case.arrays["out/displacements"], atol=DISPLACEMENT, rtol=1e-6)
    given = settings(case, "args_json")
    mask = input_mask(sampling_of(given), steps_of(given))
    np.testing.assert_array_equal(mask, case.arrays["out/input_mask"].astype(bool))


def test_detections(tal: Case | None) -> None:
    case = require(tal, "labels of temporal localization")
    assert_labels(detections_of(case, options_of(settings(case, "args_json"))), case)


def test_moments(mr: Case | None) -> None:
    case = require(mr, "labels of moment retrieval")
    given = settings(case, "args_json")
    assert_labels(moment_labels(segments_of(case), sampling_of(given), options_of(given)), case)
    if "out/caption_mask" in case.arrays:
        expected = case.arrays["out/caption_mask"].astype(bool)
        np.testing.assert_array_equal(caption_mask(segments_of(case)), expected)


def test_frames(frames: Case | None) -> None:
    case = require(frames, "labels of action segmentation")
    given = settings(case, "args_json")
    sampling = sampling_of(given)
    found = frame_labels(segments_of(case), case.arrays["in/label_index"], given["num_classes"], sampling)
    np.testing.assert_array_equal(found, case.arrays["out/label"])
    mask = input_mask(sampling, steps_of(given))
    np.testing.assert_array_equal(mask, case.arrays["out/input_mask"].astype(bool))


def test_another_radius_is_noticed() -> None:
    """The crippled twin: without the radius, or with a small one, other steps are positive."""
    cases = [(c, options_of(settings(c, "args_json"))) for c in find_tables("labels", "tal", "in/label_index")]
    assert cases, "no golden case of temporal localization"

    def differs(case: Case, options: LabelOptions) -> bool:
        crippled = replace(options, radius=None if options.radius else 0.5)
        return bool((detections_of(case, crippled).positive != case.arrays["out/label"]).any())

    assert any(differs(case, options) for case, options in cases)
