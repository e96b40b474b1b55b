"""The association transformer and its loss, beyond what the goldens say."""

from __future__ import annotations

import pytest
import torch

from onlooker.operators.objects.densevoc.association import Association, AssociationConfig, is_object
from onlooker.training.objects.association_loss import association_loss, match_identities

SMALL = AssociationConfig(feature_size=4 * 6, width=16, num_heads=2)


@pytest.fixture
def model() -> Association:
    torch.manual_seed(0)
    return Association(SMALL).eval()


@torch.no_grad()
def test_kept_tokens_give_what_features_give(model: Association) -> None:
    """A stream embeds a detection once; frames may hold any number of them."""
    features = torch.randn(3, 5, 4, 6)
    tokens = torch.cat([model.embed(frame) for frame in features])
    torch.testing.assert_close(model.relate(tokens), model(features))
    torch.testing.assert_close(model(features.flatten(0, 1)), model(features))
    assert model(features[:, :0]).shape == (0, 0)


@torch.no_grad()
def test_several_clips_at_once_do_not_meet(model: Association) -> None:
    features = torch.randn(2, 7, 4, 6)
    both = model.relate(model.embed(features).unflatten(0, (2, 7)))
    torch.testing.assert_close(both, torch.stack([model(clip) for clip in features]))


@torch.no_grad()
def test_background_scores_nothing_and_yet_takes_part(model: Association) -> None:
    features = torch.randn(2, 3, 4, 6)
    features[1, 2] = 0
    assert is_object(features).tolist() == [[True] * 3, [True, True, False]]
    scores = model.scores(features)
    assert not scores[5].any() and not scores[:, 5].any() and bool((scores[:5, :5] > 0).all())
    without = model.scores(features.flatten(0, 1)[:5])
    assert not torch.allclose(scores[:5, :5], without), "the reference has no mask of keys"


def test_learns_who_is_who() -> None:
    """Noisy views of four objects: the loss falls, and scores of unseen views tell them apart."""
    torch.manual_seed(0)
    model, objects = Association(SMALL), torch.randn(4, 4, 6)
    identities = torch.arange(4).repeat(6) + 1
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(80):
        loss = association_loss(model(objects.repeat(6, 1, 1) + 0.3 * torch.randn(24, 4, 6)), identities)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scores = model.scores(objects.repeat(6, 1, 1) + 0.3 * torch.randn(24, 4, 6))
    same = identities[:, None] == identities
    assert losses[-1] < 0.2 * losses[0]
    assert scores[same].min() > scores[~same].max()


def test_nobody_known_costs_nothing() -> None:
    logits = torch.randn(5, 5, requires_grad=True)
    loss = association_loss(logits, torch.zeros(5, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()
    assert match_identities(torch.rand(2, 3, 4), torch.rand(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64)).sum() == 0


def test_boxes_take_the_identity_of_what_they_overlap() -> None:
    true = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5.9], [0, 0, 10, 6.1], [0, 0, 0, 0], [10, 10, 0, 0]])
    assert match_identities(boxes, true, torch.tensor([7, 8, 9, 0])).tolist() == [7, 0, 7, 0, 0]


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads"):
        AssociationConfig(width=10, num_heads=4)
    with pytest.raises(ValueError, match="at least 1"):
        AssociationConfig(feature_size=0)
