"""Spans of memory centres: where they point, that they scale with the age, and what a model makes of them."""

import dataclasses

import numpy as np
import pytest
import torch

from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import DenseConfig, MemoryConfig, SearchConfig
from onlooker.operators.caption.dense_events import parse_events
from onlooker.operators.caption.git import GitConfig
from onlooker.operators.caption.spans import span_features, with_spans

from . import trained_dense

BINS, D, N = 9, 6, 4


def test_an_unbroken_view_is_found_again():
    seconds = torch.arange(4.0, 13.0)  # in view from 4 to 12 of 16
    times = torch.tensor([[seconds.mean(), seconds.std(unbiased=False)]])
    start, end = span_features(times, 16.0, BINS).unflatten(-1, (2, BINS))[0]
    assert start.argmax() == 4 / 16 * (BINS - 1) and end.argmax() == 12 / 16 * (BINS - 1)


def test_bins_are_shares_of_the_age():
    times = torch.tensor([[3.0, 1.0], [5.0, 0.0]])
    torch.testing.assert_close(span_features(times, 8.0, BINS), span_features(4 * times, 32.0, BINS))
    ages = torch.tensor([8.0, 32.0])
    both = span_features(torch.stack([times, times]), ages, BINS)
    torch.testing.assert_close(both[1], span_features(times, 32.0, BINS))
    assert not torch.allclose(both[0], both[1])


def test_tokens_keep_their_look():
    memory = torch.randn(2, 3, D)
    told = with_spans(memory, torch.rand(2, 3, 2), 4.0, BINS)
    assert told.shape == (2, 3, D + 2 * BINS) and torch.equal(told[..., :D], memory)


def config(**values):
    decoder = GitConfig(20 + BINS, D + 2 * BINS, 16, 2, 1, 32, 24, begin_token=1, end_token=2)
    given = {
        "encoder": None,
        "decoder": decoder,
        "memory": MemoryConfig(size=2 * N),
        "search": SearchConfig("greedy"),
        "spans": True,
        "num_bins": BINS,
        "max_length": 20,
        "train_points": 2,
        "test_points": 2,
    }
    return DenseConfig(**{**given, **values})


def test_the_decoder_sees_the_order_of_frames_only_with_spans():
    torch.manual_seed(0)
    model = DenseCaptioner(config()).eval()
    # One look for each place, so that clustering gives the same centres in any order of time.
    first, second = torch.randn(2, N, D).sign() * 5
    frames = torch.tensor([[3, 7]])
    one = torch.stack([first] * 4 + [second] * 4)[None]
    other = torch.stack([first] * 2 + [second] * 4 + [first] * 2)[None]
    told = [model.training_memories(tokens, 2, frames) for tokens in (one, other)]
    assert told[0].shape == (1, 2, 2 * N, D + 2 * BINS)
    assert torch.allclose(told[0][:, 1, :, :D].mean(1), told[1][:, 1, :, :D].mean(1), atol=1e-5)
    assert not torch.allclose(told[0][:, 1], told[1][:, 1])


@pytest.mark.parametrize("points", ["given_checkpoints", "per_frame_and_gather"])
def test_training_and_decoding_see_the_same(points):
    torch.manual_seed(1)
    model = DenseCaptioner(config(memory=MemoryConfig(points=points, size=2 * N))).eval()
    tokens = torch.randn(1, 8, N, D)
    training = model.training_memories(tokens, 2, torch.tensor([[3, 7]]))
    seen = []
    model.decode_memories = lambda memories, search: seen.extend(memories)
    model.decode_tokens(tokens)
    torch.testing.assert_close(torch.stack(seen, 1), training)


def test_configurations_without_room_for_spans_are_refused():
    with pytest.raises(ValueError, match="must be more than the 18 values of spans"):
        config(decoder=dataclasses.replace(config().decoder, visual_width=18))
    with pytest.raises(ValueError, match="fixed_checkpoints"):
        config(memory=MemoryConfig(points="fixed_checkpoints"))
    assert config().token_width == D


def test_starts_and_ends_are_learnt_from_spans():
    """The twin, which is trained alike but without spans, knows what happened and hardly when."""

    def off(model):
        """Mean distance of told starts and ends from those of the scene that is named, seconds."""
        found = []
        for seed in range(20):
            video, truth = trained_dense.one(np.random.default_rng(500 + seed))
            row = model.decode_tokens(video.tokens[None], SearchConfig("greedy")).tokens[0, 1:].tolist()
            for event in parse_events(row, model.config.times, trained_dense.FRAMES * 10**6, strict=False):
                for start, end, scene in truth:
                    if trained_dense.FIRST_WORD + scene in event.tokens:
                        found.append(abs(event.start_us / 1e6 - start) + abs(event.end_us / 1e6 - end))
        assert len(found) > 20
        return float(np.mean(found))

    assert off(trained_dense.trained()) < 0.6 * off(trained_dense.trained(spans=False))
