"""Dense VOC's aggregation of tracks against the reference: soft, consistent, hard, and which frames are sampled."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch

from onlooker.operators.objects.densevoc.aggregation import (
    detection_tokens,
    same_track,
    sampled_members,
    soft_features,
    soft_weights,
    track_members,
    track_tokens,
    windowed,
)
from onlooker.operators.objects.densevoc.identity import assign_identities
from onlooker.training.objects.caption_loss import track_texts

from .dense_voc_model import find_files, find_parts
from .goldens import Case, assert_close, parametrize_with, require

KINDS = ("b_aggregation", "b_frame_sampling_table")
SOFT = re.compile(r"soft_(consistent|w(-?\d+))/.+")
TABLE = re.compile(r"kept_frame_index_H(\d+)")
KNOWN = re.compile(
    r"mode|identity|asso_scores|object_features|matched_text|hard_tracking_frames|max_num_tracks|thresh|track_ids"
    r"|soft_(consistent|w-?\d+)/(tracked_object_features|normalized_asso_scores)"
    r"|hard/(track_features|track_feature_mask|decoder_features|decoder_mask|track_texts|track_matrix)"
)


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_with(metafunc, "case", partial(find_parts, KINDS[0]))
    parametrize_with(metafunc, "table", partial(find_files, KINDS[1]))


def test_every_array_is_compared(case: Case | None, table: Case | None) -> None:
    unknown = [name for name in require(case, "aggregation").arrays if not KNOWN.fullmatch(name)]
    unknown += [name for name in require(table, "sampling").arrays if not TABLE.fullmatch(name)]
    assert not set(unknown) - {"hard_tracking_frames"}, f"no check knows {unknown}"


def features_of(case: Case) -> torch.Tensor:
    """(T, N, S, C)."""
    return case.tensor("object_features").flatten(2, 3)


def test_identities(case: Case | None) -> None:
    case = require(case, "aggregation")
    found = assign_identities(case.arrays["asso_scores"], len(case.arrays["identity"]), float(case.number("thresh")))
    assert found.tolist() == case.arrays["track_ids"].reshape(-1).tolist()


def test_soft(case: Case | None) -> None:
    case = require(case, "soft aggregation")
    features, scores = features_of(case), case.tensor("asso_scores")
    kinds = {found[1]: found[2] for name in case.arrays if (found := SOFT.fullmatch(name))}
    assert kinds
    for kind, window in kinds.items():
        own = (
            same_track(case.tensor("track_ids").flatten())
            if kind == "consistent"
            else windowed(scores, len(features), int(window))
        )
        weights = soft_weights(own)
        assert_close(weights, case.tensor(f"soft_{kind}/normalized_asso_scores"), 1e-6)
        wanted = case.tensor(f"soft_{kind}/tracked_object_features")
        assert_close(soft_features(features, weights), wanted, 1e-5)


def test_hard(case: Case | None) -> None:
    case = require(case, "hard aggregation")
    features, ids = features_of(case), case.tensor("track_ids")
    tracks, frames = int(case.number("max_num_tracks")), int(case.number("hard_tracking_frames"))
    members = track_members(ids.flatten(), tracks)
    assert members.equal(case.tensor("hard/track_matrix").bool())
    found = track_tokens(features, ids, tracks, frames)
    assert_close(found.tokens, case.tensor("hard/track_features"), 0)
    assert found.mask.equal(case.tensor("hard/track_feature_mask").bool())
    each = detection_tokens(features, ids, found)
    assert_close(each.tokens, case.tensor("hard/decoder_features"), 0)
    assert each.mask.equal(case.tensor("hard/decoder_mask").bool())
    texts = track_texts(case.tensor("matched_text").flatten(0, 1), members, frames)
    assert texts.equal(case.tensor("hard/track_texts"))


def test_sampled_frames(table: Case | None) -> None:
    table = require(table, "sampled frames")
    tables = {int(found[1]): name for name in table.arrays if (found := TABLE.fullmatch(name))}
    assert tables
    for frames, name in tables.items():
        wanted = table.tensor(name)
        for count, row in enumerate(wanted):
            # Members stand among others, so that a member's number is not its index.
            members = torch.zeros(1, 2 * count + 3, dtype=torch.bool)
            members[0, 1 : 2 * count : 2] = True
            index = sampled_members(members, frames)[0]
            assert torch.where(index < 0, -1, index // 2).equal(row), f"{name}, {count} members"


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_are_there(kind: str) -> None:
    assert find_files(kind), f"no golden of kind {kind}: nothing was compared"
