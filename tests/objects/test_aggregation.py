"""What captions of tracks are told from and learnt by, restated literally; and that they tell objects apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onlooker.operators.caption.git import GitDecoder
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
from onlooker.operators.objects.densevoc.captions import write_captions
from onlooker.operators.objects.densevoc.grounding import sentence_likelihood
from onlooker.training.objects.caption_loss import object_caption_loss, track_texts

from .densevoc_parts import CAPTIONER, WORDS

END = CAPTIONER.end_token


@given(st.lists(st.lists(st.booleans(), min_size=0, max_size=30), min_size=1, max_size=3), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_samples_are_spread_over_the_life_of_a_track(rows: list[list[bool]], frames: int) -> None:
    width = max(len(row) for row in rows)
    members = torch.tensor([row + [False] * (width - len(row)) for row in rows], dtype=torch.bool)
    found = sampled_members(members.reshape(len(rows), width), frames)
    for row, own in zip(rows, found.tolist(), strict=True):
        indices = [number for number, is_member in enumerate(row) if is_member]
        count = len(indices)
        wanted = [indices[j * count // frames] for j in range(frames)] if count > frames else indices
        assert own == wanted + [-1] * (frames - len(wanted))


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_tokens_and_texts_of_tracks(seed: int, frames: int, sampled: int) -> None:
    """Three places a frame, four identities of which the last has no track of its own; texts abound in ties."""
    random = np.random.default_rng(seed)
    identities = np.stack([random.permutation([0, 1, 2, 3, 4])[:3] for _ in range(frames)])
    features = torch.from_numpy(random.normal(size=(frames, 3, 2, 4)).astype(np.float32))
    texts = random.integers(0, 2, (frames * 3, 2))
    ids = torch.from_numpy(identities)
    tracks = track_tokens(features, ids, 3, sampled)
    told = track_texts(torch.from_numpy(texts), track_members(ids.flatten(), 3), sampled)
    flat, flat_ids = features.flatten(0, 1), identities.ravel()
    for track in range(3):
        own = np.flatnonzero(flat_ids == track + 1)
        kept = own if len(own) <= sampled else own[[j * len(own) // sampled for j in range(sampled)]]
        size = 2 * len(kept)
        assert tracks.tokens[track, :size].equal(flat[kept].flatten(0, 1)) and not tracks.tokens[track, size:].any()
        assert tracks.mask[track].tolist() == [True] * size + [False] * (2 * sampled - size)
        # As in the reference, a text of zeros has the votes of the places that nobody takes.
        votes = Counter(map(tuple, texts[kept].tolist())) + Counter({(0, 0): sampled - len(kept)})
        wanted = max(map(tuple, texts[kept].tolist()), key=lambda text: votes[text], default=(0, 0))
        assert tuple(told[track].tolist()) == wanted
    each = detection_tokens(features, ids, tracks)
    for place, identity in np.ndenumerate(identities):
        tokens, mask = each.tokens[place], each.mask[place]
        if identity == 0:
            assert mask.tolist() == [True] * 2 + [False] * (2 * sampled - 2) and tokens[:2].equal(features[place])
        else:
            assert tokens.equal(tracks.tokens[min(identity, 3) - 1]) and mask.equal(tracks.mask[min(identity, 3) - 1])


def test_soft_means_stay_within_the_window_and_the_track() -> None:
    torch.manual_seed(0)
    features, scores = torch.randn(4, 2, 3, 5), torch.rand(8, 8) + 0.1
    frame = torch.arange(8) // 2
    for window in (0, 1, 3):
        kept = windowed(scores, 4, window) > 0
        near = (frame[:, None] - frame).abs() <= window
        assert kept.equal(near & ((frame[:, None] != frame) | torch.eye(8, dtype=torch.bool)))
    alone = soft_features(features, soft_weights(windowed(scores, 4, 0)))
    torch.testing.assert_close(alone, features, rtol=1e-4, atol=1e-4)
    identities = torch.tensor([1, 2, 2, 1, 1, 0, 0, 2])
    means = soft_features(features, soft_weights(same_track(identities))).flatten(0, 1)
    for identity in (0, 1, 2):
        own = identities == identity
        mean = features.flatten(0, 1)[own].mean(0)
        torch.testing.assert_close(means[own], mean.expand_as(means[own]), rtol=1e-4, atol=1e-4)
    assert not soft_weights(torch.zeros(3, 3)).any(), "no division by nothing"


def test_what_does_not_count_does_not_matter() -> None:
    """Rows that show no object, texts that are empty, padding; even where a row's logits are no numbers."""
    torch.manual_seed(0)
    logits = torch.randn(4, 5, 12)
    targets = torch.tensor([[2, 5, 6, END, 0], [2, 7, END, 0, 0], [2, END, 0, 0, 0], [2, 8, END, 0, 0]])
    matched = torch.tensor([1, 1, 1, 0])
    loss = object_caption_loss(logits, targets, matched, END)
    one = object_caption_loss(logits[:2], targets[:2], matched[:2], END)
    assert loss.total.item() == pytest.approx(one.total.item(), rel=1e-6)
    assert loss.tokens.item() == pytest.approx(5 / 3)
    broken = logits.clone()
    broken[2:] = float("nan")
    broken.requires_grad_(True)
    again = object_caption_loss(broken, targets, matched, END)
    again.total.backward()
    assert again.total.item() == pytest.approx(loss.total.item(), rel=1e-6)
    assert broken.grad is not None and bool(broken.grad[:2].isfinite().all())
    nothing = object_caption_loss(logits, targets, torch.zeros(4), END)
    assert nothing.total.item() == 0 and nothing.tokens.item() == 0


@pytest.fixture(scope="module")
def taught() -> tuple[GitDecoder, torch.Tensor, torch.Tensor]:
    """A decoder that learnt a text for each of three looks: decoder, looks (3, 4, 16), texts (3, 6)."""
    torch.manual_seed(0)
    decoder, looks = GitDecoder(CAPTIONER), torch.randn(3, 4, 16)
    sentences = ("a red dog runs", "a man walks", "a ball")
    rows = [[CAPTIONER.begin_token, *map(WORDS.index, words.split()), END] for words in sentences]
    texts = torch.tensor([row + [0] * (6 - len(row)) for row in rows])
    optimizer = torch.optim.Adam(decoder.parameters(), 3e-3)
    for _ in range(60):
        logits = decoder(texts, looks + 0.3 * torch.randn_like(looks))
        loss = object_caption_loss(logits, texts, torch.ones(3), END).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return decoder.eval(), looks, texts


def test_each_object_is_told_as_it_looks(taught: Any) -> None:
    decoder, looks, texts = taught
    assert write_captions(decoder, looks, None, 7).tokens[:, :6].where(texts > 0, texts).equal(texts)
    mixed = write_captions(decoder, looks[[1, 2, 0]], None, 7).tokens[:, :6]
    assert not mixed.where(texts > 0, texts).equal(texts), "looks of others give texts of others"


@pytest.mark.parametrize("method", ["sumlogprob", "sumprob"])
def test_a_sentence_finds_its_object(method: Any, taught: Any) -> None:
    decoder, looks, texts = taught
    order = torch.tensor([[0, 1, 2], [2, 0, 1]])
    for number, text in enumerate(texts):
        found = sentence_likelihood(decoder, looks[order], torch.ones(2, 3), text, method)
        assert found.argmax(1).tolist() == [row.tolist().index(number) for row in order]
        assert found.gt(0.9).equal(order == number)
    refused = sentence_likelihood(decoder, looks[order], -torch.ones(2, 3), texts[0], method)
    assert not refused.any()
    with pytest.raises(ValueError, match="sumlogprob or sumprob"):
        sentence_likelihood(decoder, looks[order], torch.ones(2, 3), texts[0], "mean")  # type: ignore[arg-type]
