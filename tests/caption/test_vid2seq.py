"""Vid2Seq's parts: stretched features, masks, cached decoding, rounding, training."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from onlooker.operators.caption.search import beam_search, greedy_search
from onlooker.operators.caption.vid2seq import rounding
from onlooker.operators.caption.vid2seq.config import Vid2SeqConfig, Vid2SeqError
from onlooker.operators.caption.vid2seq.decoding import TextState, decode_videos, search_text
from onlooker.operators.caption.vid2seq.model import Encoded, Vid2Seq, stretch
from onlooker.training.dvc_loss import CaptionLossOptions, caption_loss

TINY = Vid2SeqConfig(
    vocab_size=40,
    num_bins=8,
    num_frames=8,
    width=16,
    num_heads=2,
    head_dim=8,
    ffn_size=24,
    encoder_layers=2,
    decoder_layers=2,
    dropout=0.0,
    visual_layers=1,
    visual_heads=2,
    visual_ffn_size=24,
    max_length=14,
)


def tiny(seed: int = 0, zeros: float = 0.0, **changes: Any) -> Vid2Seq:
    """A random model; `zeros` makes it write the padding token the more often the larger it is."""
    torch.manual_seed(seed)
    model = Vid2Seq(dataclasses.replace(TINY, **changes)).eval()
    with torch.no_grad():
        for parameter in (model.encoder, model.decoder):
            for weight in parameter.parameters():
                if weight.ndim == 2:
                    weight.mul_(2.0)  # livelier texts
        if zeros:
            assert model.lm_head is not None
            model.lm_head.weight[0] = zeros * model.lm_head.weight[2:].mean(0)
    return model


def features_of(batch: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, TINY.num_frames, TINY.width, generator=torch.Generator().manual_seed(seed))


def rows_of(*rows: list[int], length: int = 10) -> torch.Tensor:
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def encoded_of(model: Vid2Seq, batch: int) -> Encoded:
    prefix = rows_of(*[[0, 5 + item, 9, 1] for item in range(batch)])
    with torch.no_grad():
        return model.join(model.encode_visual(features_of(batch)), prefix)


# --- What a decoding point sees


def test_stretch_keeps_both_ends_and_their_order() -> None:
    index = stretch(torch.arange(100), 100)
    assert index[:, 0].tolist() == [0] * 100
    assert index[:, -1].tolist() == list(range(100))
    assert index[-1].tolist() == list(range(100))
    assert index[1].tolist() == [0] * 50 + [1] * 50
    assert bool((index.diff(dim=1) >= 0).all())
    assert stretch(torch.tensor([0]), 1).tolist() == [[0]]


@pytest.mark.parametrize(
    ("frames", "recorded"),
    [
        (5, [(1, 2, 1), (2, 1, 1), (2, 3, 2), (3, 2, 2)]),
        (89, [(1, 44, 1), (22, 82, 21), (44, 45, 23), (66, 10, 8)]),
        (95, [(5, 47, 2), (11, 47, 5), (1, 47, 1), (47, 47, 23)]),
        (111, [(5, 33, 1), (5, 55, 2), (11, 15, 1), (33, 95, 28), (109, 55, 54)]),
        (125, [(17, 62, 8), (31, 122, 31), (62, 63, 32), (93, 6, 5)]),
    ],
)
def test_steps_that_end_halfway_are_rounded_as_in_jax(frames: int, recorded: list[tuple[int, int, int]]) -> None:
    """Recorded from `jnp.linspace` in float32: half of them would come out otherwise in exact arithmetic."""
    index = stretch(torch.arange(frames), frames)
    assert [int(index[t, slot]) for t, slot, _ in recorded] == [expected for *_, expected in recorded]


@torch.no_grad()
def test_a_point_sees_nothing_of_later_frames() -> None:
    model, features = tiny(), features_of(2)
    changed = features.clone()
    changed[:, 4:] = 7.0
    frames = torch.tensor([[3, 7], [3, 7]])
    before, after = model.encode_visual(features, frames), model.encode_visual(changed, frames)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])


@torch.no_grad()
def test_last_point_equals_the_whole_video() -> None:
    model, features = tiny(), features_of(2)
    torch.testing.assert_close(model.encode_visual(features, torch.tensor([7]))[:, 0], model.encode_visual(features))


@torch.no_grad()
def test_padding_of_a_prefix_is_not_seen() -> None:
    model = tiny()
    visual = model.encode_visual(features_of(1))
    text = rows_of([0, 33, 36, 4, 7, 1])
    short, long = rows_of([0, 5, 9, 1], length=6), rows_of([0, 5, 9, 1], length=12)
    other = rows_of([0, 5, 8, 1], length=6)
    logits = [model.logits(model.decode(text, model.join(visual, prefix)))[:, :5] for prefix in (short, long, other)]
    torch.testing.assert_close(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


@torch.no_grad()
def test_texts_do_not_see_what_follows() -> None:
    model = tiny()
    encoded = encoded_of(model, 1)
    one, two = rows_of([0, 33, 36, 4, 7, 1]), rows_of([0, 33, 36, 4, 9, 12, 3, 1])
    first, second = (model.logits(model.decode(text, encoded)) for text in (one, two))
    torch.testing.assert_close(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4], second[:, 4])


def test_relative_positions_have_the_buckets_of_t5() -> None:
    """The distances at which the reference's formula (float32, with an epsilon) enters the next bucket."""
    attention = tiny().decoder.block[0].layer[0].SelfAttention
    distance = torch.arange(0, 300)
    causal = attention._relative_position_bucket(-distance, False)
    starts = [int((causal >= bucket).nonzero()[0]) for bucket in range(32)]
    assert starts == [*range(17), 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
    both = attention._relative_position_bucket(-distance, True)
    starts = [int((both >= bucket).nonzero()[0]) for bucket in range(16)]
    assert starts == [*range(9), 12, 16, 23, 32, 46, 64, 91]
    assert torch.equal(attention._relative_position_bucket(distance, True)[1:], both[1:] + 16)


# --- Token by token


class Recomputed:
    """A step function without memory: all that was written goes through the model again, as the reference does it."""

    def __init__(self, model: Vid2Seq, encoded: Encoded, beams: int, begin: torch.Tensor) -> None:
        self.model = model
        self.encoded = Encoded(encoded.states.repeat_interleave(beams, 0), encoded.mask.repeat_interleave(beams, 0))
        self.tokens = begin.repeat_interleave(beams, 0).clone()

    def step(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        self.tokens[:, position] = tokens
        return self.model.logits(self.model.decode(self.tokens, self.encoded))[:, position]

    def reorder(self, rows: torch.Tensor) -> None:
        self.tokens = self.tokens[rows]


class Forgetful(TextState):
    """A crippled cache: padding that was written hides nothing."""

    def step(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        self._visible = torch.ones_like(self._visible)
        logits = super().step(tokens.clamp(min=1), position) if position else super().step(tokens, position)
        return logits


def both_searches(model: Vid2Seq, batch: int, beam: int, state: type[TextState] = TextState) -> list[bool]:
    """Whether beam and greedy search find the same texts with and without the cache; scores too."""
    config = model.config
    encoded = encoded_of(model, batch)
    begin = torch.full((batch, config.max_length), config.end_token)
    begin[:, 0] = config.begin_token
    with torch.no_grad():
        ours = beam_search(state(model, encoded, beam), begin, config.end_token, beam)
        plain = beam_search(Recomputed(model, encoded, beam, begin), begin, config.end_token, beam)
        greedy = greedy_search(state(model, encoded), begin, config.end_token)[0]
        plain_greedy = greedy_search(Recomputed(model, encoded, 1, begin), begin, config.end_token)[0]
    return [
        torch.equal(ours.sequences, plain.sequences) and torch.allclose(ours.scores, plain.scores, atol=1e-4),
        torch.equal(greedy, plain_greedy),
    ]


@pytest.mark.parametrize("zeros", [0.0, 3.0])
@pytest.mark.parametrize("beam", [1, 4])
def test_cached_search_finds_the_same_texts(beam: int, zeros: float) -> None:
    for seed in range(2):
        assert all(both_searches(tiny(seed, zeros), 3, beam)), seed


@torch.no_grad()
def test_cached_logits_with_padding_inside_the_text() -> None:
    """Padding in the middle hides the position before it; a cache that overlooks that gives other logits."""
    model = tiny()
    encoded = encoded_of(model, 2)
    tokens = torch.tensor([[0, 33, 0, 4, 0, 0, 7, 9], [0, 5, 6, 0, 8, 2, 0, 3]])
    for state, right in ((TextState(model, encoded), True), (Forgetful(model, encoded), False)):
        close = []
        for position in range(tokens.shape[1]):
            rest = F.pad(tokens[:, : position + 1], (0, 1), value=1)
            expected = model.logits(model.decode(rest, encoded))[:, position]
            close.append(torch.allclose(state.step(tokens[:, position], position), expected, atol=1e-4))
        assert all(close) == right, close


def test_steps_must_follow_each_other() -> None:
    model = tiny()
    state = TextState(model, encoded_of(model, 1))
    with pytest.raises(ValueError, match="position 3 does not follow the 0 tokens"):
        state.step(torch.tensor([0]), 3)


def test_items_of_a_batch_do_not_meet() -> None:
    model = tiny(2)
    together = decode_videos(model, features_of(3)).tokens
    alone = [decode_videos(model, features[None]).tokens for features in features_of(3)]
    assert torch.equal(together, torch.cat(alone))


def test_context_of_a_point_changes_what_it_writes() -> None:
    model = tiny(5)
    result = decode_videos(model, features_of(1))
    last = result.points[-1]
    assert last.fed is not None
    visual = model.encode_visual(features_of(1), torch.tensor([7]))[:, 0].detach()
    assert torch.equal(search_text(model, model.join(visual, last.fed)), last.tokens)
    assert not torch.equal(search_text(model, model.join(visual)), last.tokens)


# --- bfloat16


def test_gelu_and_softmax_round_like_jax() -> None:
    """Recorded from `jax.nn` 0.10.2 on arrays of bfloat16; rounding once at the end gives other numbers."""
    x = torch.tensor([-2.59375, -1.1015625, -0.369140625, 0.02099609375, 0.439453125, 0.9296875, 1.703125, 2.90625])
    gelu = [-0.0101318359375, -0.1484375, -0.130859375, 0.01068115234375, 0.294921875, 0.765625, 1.625, 2.90625]
    softmax = [
        *(0.0024871826171875, 0.01116943359375, 0.02294921875, 0.03369140625),
        *(0.051513671875, 0.08447265625, 0.18359375, 0.609375),
    ]
    assert rounding.TanhGelu()(x.bfloat16()).tolist() == gelu
    assert rounding.softmax(x.bfloat16()).tolist() == softmax
    assert F.gelu(x, approximate="tanh").bfloat16().tolist() != gelu
    assert torch.softmax(x, -1).bfloat16().tolist() != softmax
    assert torch.equal(rounding.softmax(x), torch.softmax(x, -1))


@torch.no_grad()
def test_rounded_weights_give_the_same_numbers() -> None:
    model = tiny(dtype="bfloat16")
    tokens = rows_of([0, 33, 36, 4, 7, 1])[:, None]
    before = model(features_of(1), tokens, tokens)
    assert before.dtype == torch.bfloat16
    assert torch.equal(before, model.round_weights()(features_of(1), tokens, tokens))
    assert next(model.decoder.parameters()).dtype == torch.bfloat16
    full = tiny()(features_of(1), tokens, tokens)
    assert not torch.equal(before.float(), full)
    torch.testing.assert_close(before.float(), full, atol=0.5, rtol=0.1)


# --- Training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_few_steps_learn_a_text(dtype: str) -> None:
    model = tiny(dtype=dtype).train()
    features = features_of(2)
    tokens = rows_of([0, 32, 35, 4, 7, 1], [0, 33, 39, 9, 1], [0, 34, 36, 11, 4, 1], [0, 1]).view(2, 2, -1)
    prefix = rows_of([0, 1], [0, 4, 7, 1], [0, 1], [0, 11, 4, 1]).view(2, 2, -1)
    frames = torch.tensor([[3, 7], [3, 7]])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(15):
        logits = model(features, tokens, prefix, frames)
        assert logits.shape == (4, 10, 40)
        loss = caption_loss(logits, tokens.flatten(0, 1), 8, 1, CaptionLossOptions(time_weight=None)).total
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        missing = [name for name, weight in model.named_parameters() if weight.grad is None]
        assert not missing and all(weight.dtype == torch.float32 for weight in model.parameters())
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0], losses


# --- Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual_heads": 3}, "width 16 is not a multiple of visual_heads 3"),
        ({"num_bins": 40}, "num_bins 40 does not leave words in 40 tokens"),
        ({"begin_token": 2}, "begin_token 2 is not supported"),
        ({"end_token": 32}, "end_token 32 must be a word, 1..31"),
        ({"dtype": "float16"}, "dtype 'float16' is not supported"),
        ({"max_length": 2}, "max_length 2 must be at least 3"),
        ({"test_points": 9}, r"test_points 9 must lie in 1..8"),
    ],
)
def test_configs_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Vid2SeqError, match=message):
        dataclasses.replace(TINY, **changes)


def test_features_of_another_length() -> None:
    with pytest.raises(
        Vid2SeqError, match=r"features of shape \(1, 5, 16\): this model takes \(videos, 8 frames, 16\)"
    ):
        decode_videos(tiny(), torch.zeros(1, 5, 16))
