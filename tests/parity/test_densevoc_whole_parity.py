"""Dense VOC as a whole against the reference: from pictures to proposals, detections, tracks, captions, grounding.

What a case holds decides what is compared; an array that no test here knows is a failure, not a skip.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from onlooker.operators.objects.densevoc.convert import to_reference
from onlooker.operators.objects.densevoc.grounding import sentence_likelihood
from onlooker.operators.objects.densevoc.model import DenseVoc, Found

from .dense_voc_model import build_whole, find_files, parametrize_files
from .dense_voc_recipe import recipe_tree
from .goldens import Case, assert_close, require

KIND = "d_densevoc_whole"
KNOWN = re.compile(
    r"images|recipe_seed|num_frames|preprocessed_frame0|(pyramid|heatmap|box_reg)\d+|proposal_(boxes_unclipped|scores)"
    r"|out/(asso_scores|begin_tokens|detection_(boxes|classes|scores)|num_detections|object_features|track_features"
    r"|track_feature_mask|track_ids|tracked_object_features)|decoder_(features|mask)|text_tokens"
    r"|grounding_(sentence|likelihood)|override:.+|param_\w+|tracking_fc_kernel_factor"
)


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_files(metafunc, KIND)


@lru_cache(maxsize=1)
def computed(stem: str) -> tuple[DenseVoc, Found, dict[str, Any]]:
    """A file's model, what it finds, and its tree, made once."""
    case = next(case for case in find_files(KIND) if case.file.stem == stem)
    tree = recipe_tree(case.arrays)
    model = build_whole(case, tree)
    return model, model(case.tensor("images")), tree


def close(actual: torch.Tensor, case: Case, name: str) -> None:
    """Networks: 1e-4 of the largest value."""
    expected = case.tensor(name)
    assert_close(actual.reshape(expected.shape), expected, 1e-4 * max(1.0, float(expected.abs().max())))


def test_every_array_is_compared(case: Case | None) -> None:
    unknown = [name for name in require(case, "whole models").arrays if not KNOWN.fullmatch(name)]
    assert not unknown, f"{case} holds {unknown}: no check knows this kind"


def test_trees_go_both_ways(case: Case | None) -> None:
    case = require(case, "whole models")
    model, _, tree = computed(case.file.stem)
    again = to_reference(model)
    assert tree.keys() == again.keys()
    for name, array in tree.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@torch.no_grad()
def test_pyramid_and_proposals(case: Case | None) -> None:
    case = require(case, "whole models")
    detector, images = computed(case.file.stem)[0].detector, case.tensor("images")
    close(detector.normalize(images)[0].movedim(0, -1), case, "preprocessed_frame0")
    levels = detector.pyramid(images)
    maps = detector.proposal_generator(levels)
    for number, level in enumerate(levels):
        close(level.movedim(1, -1), case, f"pyramid{number}")
        close(maps.heatmaps[number].movedim(1, -1), case, f"heatmap{number}")
        close(maps.reaches[number].movedim(1, -1), case, f"box_reg{number}")
    found, size = detector.proposals(maps, images.shape[1:3]), max(images.shape[1:3])
    close(found.scores, case, "proposal_scores")
    wanted = case.tensor("proposal_boxes_unclipped").clamp(0, size)
    assert_close(found.boxes, wanted, 1e-4 * size)


def test_detections_and_features(case: Case | None) -> None:
    case = require(case, "whole models")
    found = computed(case.file.stem)[1]
    close(found.detected.boxes, case, "out/detection_boxes")
    close(found.detected.scores, case, "out/detection_scores")
    assert found.detected.classes.equal(case.tensor("out/detection_classes"))
    assert (found.detected.scores > 0).sum(1).equal(case.tensor("out/num_detections"))
    close(found.features, case, "out/object_features")


def test_tracks(case: Case | None) -> None:
    case = require(case, "whole models")
    model, found, _ = computed(case.file.stem)
    assert found.scores is not None and found.identities is not None
    close(found.scores, case, "out/asso_scores")
    assert found.identities.equal(case.tensor("out/track_ids"))
    if case.has("out/track_features"):
        assert found.tracks is not None
        close(found.tracks.tokens, case, "out/track_features")
        assert found.tracks.mask.equal(case.tensor("out/track_feature_mask").bool())
    given = model.evidence(found)
    if case.has("out/tracked_object_features"):
        close(given.tokens, case, "out/tracked_object_features")
    close(given.tokens, case, "decoder_features")
    if case.has("decoder_mask"):
        assert given.mask.equal(case.tensor("decoder_mask").bool())


@torch.no_grad()
def test_captions_and_grounding(case: Case | None) -> None:
    case = require(case, "whole models")
    model, found, _ = computed(case.file.stem)
    assert model.describe(found).tokens.equal(case.tensor("text_tokens"))
    assert model.captioner is not None
    sentence = case.tensor("grounding_sentence")
    own = sentence_likelihood(model.captioner, found.features, found.detected.scores, sentence)
    assert_close(own, case.tensor("grounding_likelihood"), 1e-5)
