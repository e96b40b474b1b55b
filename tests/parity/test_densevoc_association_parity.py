"""Dense VOC's association against the reference: network, loss, matched identities and greedy assignment."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from onlooker.operators.objects.densevoc.convert import to_reference
from onlooker.operators.objects.densevoc.identity import assign_identities
from onlooker.training.objects.association_loss import association_loss, match_identities

from .dense_voc_model import build_association, find_files, find_parts
from .goldens import Case, assert_close, parametrize_with, require

KINDS = ("a_association_net", "a_id_assignment")
IDS = re.compile(r"ids_thr(\d*\.\d+)")
KNOWN = re.compile(
    r"p:.+|identity|mode|num_(frames|heads)|object_features|proposals|gt_boxes|gt_track_ids|embeddings|matched_ids"
    r"|asso_(logits|scores|scores_eval)|tracking_(loss|gt|mask)|ids_thr\d*\.\d+"
)


def pytest_generate_tests(metafunc: Any) -> None:
    for name, kinds in (("case", KINDS), ("network", KINDS[:1])):
        parametrize_with(metafunc, name, partial(find_parts, *kinds))


def square(case: Case, name: str) -> torch.Tensor:
    """An array of all pairs; the reference's have an axis of one video."""
    found = case.tensor(name)
    return found.reshape(found.shape[-2:])


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_are_there(kind: str) -> None:
    assert find_files(kind), f"no golden of kind {kind}: nothing was compared"


def test_every_array_is_compared(case: Case | None) -> None:
    unknown = [name for name in require(case, "association").arrays if not KNOWN.fullmatch(name)]
    assert not unknown, f"{case} holds {unknown}: no check knows this kind"


def test_identities(case: Case | None) -> None:
    """From the scores of the case; at least one threshold is there."""
    case = require(case, "identities")
    scores = case.arrays["asso_scores"]
    frames = len(case.arrays["identity"])
    thresholds = [(name, float(found[1])) for name in case.arrays if (found := IDS.fullmatch(name))]
    assert thresholds
    for name, threshold in thresholds:
        found = assign_identities(scores.reshape(scores.shape[-2:]), frames, threshold)
        np.testing.assert_array_equal(found, case.arrays[name].reshape(-1), err_msg=name)


@torch.no_grad()
def test_network(network: Case | None) -> None:
    case = require(network, "the association network")
    tree, features = case.below("p:"), case.tensor("object_features").flatten(2, 3)
    model = build_association(tree, int(case.number("num_heads")))
    tokens = model.embed(features)
    assert_close(tokens, case.tensor("embeddings").flatten(0, -2), 1e-5)
    logits = square(case, "asso_logits")
    torch.testing.assert_close(model(features), logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
    for name in ("asso_scores", "asso_scores_eval"):
        if case.has(name):
            assert_close(model.scores(features), square(case, name), 1e-5)
    again = to_reference(model, "association")
    assert again.keys() == tree.keys() and all((again[name] == tree[name]).all() for name in tree)


def test_loss_and_what_it_is_taught(network: Case | None) -> None:
    case = require(network, "the association loss")
    identities = match_identities(case.tensor("proposals"), case.tensor("gt_boxes"), case.tensor("gt_track_ids"))
    assert identities.equal(case.tensor("matched_ids"))
    flat = identities.flatten()
    known = flat > 0
    mask, same = square(case, "tracking_mask"), square(case, "tracking_gt")
    assert mask.bool().equal(known[:, None] & known)
    assert (same.bool() & mask.bool()).equal((flat[:, None] == flat) & known[:, None] & known)
    loss = association_loss(square(case, "asso_logits"), flat)
    assert loss.item() == pytest.approx(case.number("tracking_loss"), rel=1e-5, abs=1e-6)
