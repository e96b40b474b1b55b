"""The decoder's own promises: caching, padding and packing change nothing."""

import pytest
import torch

from onlooker.operators.caption.git import GitConfig, GitDecoder, TextState
from onlooker.operators.caption.search import beam_search

CONFIG = GitConfig(
    vocab_size=30, visual_width=12, hidden_size=16, num_heads=4, num_layers=3, ffn_size=32, max_positions=20,
    begin_token=2, end_token=3,
)  # fmt: skip


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    decoder = GitDecoder(CONFIG).eval()
    for parameter in decoder.parameters():  # far from the tame initial weights
        torch.nn.init.normal_(parameter, std=0.4)
    return decoder


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    prefix = torch.tensor([[2, 5, 6, 3, 0], [2, 3, 0, 0, 0]])
    return torch.randn(2, 7, 12), prefix, torch.randint(4, 30, (2, 6))


def steps(decoder, tokens, context):
    state = TextState(decoder, context, tokens.shape[1])
    return torch.stack([state.step(tokens[:, i], i) for i in range(tokens.shape[1])], 1)


@torch.no_grad()
def test_token_by_token_equals_the_whole_text(decoder, inputs):
    memory, prefix, text = inputs
    whole = decoder(text, memory, None, prefix)
    torch.testing.assert_close(steps(decoder, text, decoder.encode_context(memory, None, prefix)), whole)


@torch.no_grad()
def test_padding_of_the_memory_changes_nothing(decoder, inputs):
    memory, prefix, text = inputs
    padded = torch.cat([memory, torch.full((2, 3, 12), 7.0)], 1)
    mask = torch.tensor([[True] * 7 + [False] * 3] * 2)
    torch.testing.assert_close(decoder(text, padded, mask, prefix), decoder(text, memory, None, prefix))
    assert not torch.allclose(decoder(text, padded, None, prefix), decoder(text, memory, None, prefix))


@torch.no_grad()
def test_text_is_causal_and_prefix_is_not(decoder, inputs):
    memory, prefix, text = inputs
    changed = text.clone()
    changed[:, 4] = 4
    before, after = decoder(text, memory, None, prefix), decoder(changed, memory, None, prefix)
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4:], after[:, 4:])
    other = prefix.clone()
    other[0, 2] = 9
    assert not torch.equal(before[0, 0], decoder(text, memory, None, other)[0, 0])


@torch.no_grad()
def test_packed_texts_do_not_see_each_other(decoder, inputs):
    memory, prefix, text = inputs
    context = decoder.encode_context(memory, None, prefix)
    alone = [decoder.decode(part, context) for part in (text[:, :2], text[:, 2:])]
    positions = torch.tensor([[0, 1, 0, 1, 2, 3]]).expand(2, -1)
    segment = torch.tensor([[0, 0, 1, 1, 1, 1]]).expand(2, -1)
    mask = (segment[:, :, None] == segment[:, None, :]).tril()
    torch.testing.assert_close(decoder.decode(text, context, positions, mask), torch.cat(alone, 1))


@torch.no_grad()
def test_beams_follow_their_own_cache(decoder, inputs):
    """A search that recomputes everything from the tokens gives the same texts as one that reorders the cache."""
    memory, prefix, _ = inputs

    class Recompute:
        def __init__(self, beams):
            self.memory, self.prefix = memory.repeat_interleave(beams, 0), prefix.repeat_interleave(beams, 0)
            self.text = torch.zeros(len(self.memory), 0, dtype=torch.int64)

        def step(self, tokens, position):
            self.text = torch.cat([self.text, tokens[:, None]], 1)
            return decoder(self.text, self.memory, None, self.prefix)[:, -1]

        def reorder(self, rows):
            self.text = self.text[rows]

    class Forgetful(TextState):
        def reorder(self, rows):
            pass

    begin = torch.full((2, 12), 3)
    begin[:, 0] = 2
    context = decoder.encode_context(memory, None, prefix).repeat(4)
    cached = beam_search(TextState(decoder, context, 12), begin, 3, 4)
    assert torch.equal(cached.sequences, beam_search(Recompute(4), begin, 3, 4).sequences)
    assert not torch.equal(cached.sequences, beam_search(Forgetful(decoder, context, 12), begin, 3, 4).sequences)


def test_tied_output_shares_its_kernel():
    values = {**CONFIG.to_dict(), "tie_word_embeddings": True}
    decoder = GitDecoder(GitConfig(**values))
    assert decoder.output.weight is decoder.words.weight


def test_errors_name_the_value(decoder):
    with pytest.raises(ValueError, match="hidden_size 10 is not a multiple of num_heads 4"):
        GitConfig(hidden_size=10, num_heads=4)
    with pytest.raises(ValueError, match="begin_token 0"):
        GitConfig(begin_token=0)
    context = decoder.encode_context(torch.zeros(1, 2, 12))
    with pytest.raises(ValueError, match="max_length 21 exceeds the decoder's 20 positions"):
        TextState(decoder, context, 21)
    state = TextState(decoder, context, 5)
    with pytest.raises(ValueError, match="position 1 does not follow the 0 tokens"):
        state.step(torch.tensor([2]), 1)
