"""Decoding with kept keys and values finds the tokens that decoding all anew finds, at a fraction of the work."""

import pytest
import torch

from onlooker.operators.caption.git import GitConfig, GitDecoder, TextState
from onlooker.operators.caption.search import beam_search, greedy_search

BEGIN, END = 2, 3
LENGTH = 42
"""Positions for 40 tokens between begin and the place that is never written."""


def make_decoder(seed=0, layers=2, tied=False, std=0.8):
    torch.manual_seed(seed)
    config = GitConfig(40, 12, 24, 4, layers, 48, LENGTH, tie_word_embeddings=tied, begin_token=BEGIN, end_token=END)
    decoder = GitDecoder(config).eval()
    for parameter in decoder.parameters():  # far from the tame initial weights: every row and position matters
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=std)
    return decoder


def inputs(seed=0, batch=2):
    """Memories (B, K, D) of which the last is padded, their mask, and prefixes of unequal length."""
    torch.manual_seed(seed)
    mask = torch.ones(batch, 9, dtype=torch.bool)
    mask[-1, 5:] = False
    prefix = torch.randint(4, 40, (batch, 6))
    prefix[:, 0], prefix[:, -1] = BEGIN, END
    prefix[-1, 3:] = torch.tensor([END, 0, 0])
    return torch.randn(batch, 9, 12), mask, prefix


class Anew:
    """The reference's way: memory, prefix and the whole text so far, for every token."""

    def __init__(self, decoder, memory, mask, prefix, beams=1):
        self.decoder = decoder
        self.memory, self.mask, self.prefix = (part.repeat_interleave(beams, 0) for part in (memory, mask, prefix))
        self.text = torch.zeros(len(self.memory), 0, dtype=torch.int64)

    def step(self, tokens, position):
        self.text = torch.cat([self.text, tokens[:, None]], 1)
        return self.decoder(self.text, self.memory, self.mask, self.prefix)[:, -1]

    def reorder(self, rows):
        self.text = self.text[rows]


class Cached(TextState):
    def __init__(self, decoder, memory, mask, prefix, beams=1):
        super().__init__(decoder, decoder.encode_context(memory, mask, prefix).repeat(beams), LENGTH)


class Stale(Cached):
    """The twin that fails: beams whose kept rows do not follow them."""

    def reorder(self, rows):
        pass


class Shifted(Cached):
    """The twin that fails: every row at the position of the one before."""

    def step(self, tokens, position):
        words = self._decoder.positions.weight
        kept = words[position].clone()
        words[position] = words[max(0, position - 1)]
        logits = super().step(tokens, position)
        words[position] = kept
        return logits


def search(way, decoder, given, beams):
    begin = torch.full((len(given[0]), LENGTH), END)
    begin[:, 0] = BEGIN
    with torch.no_grad():
        model = way(decoder, *given, beams)
        return greedy_search(model, begin, END)[0] if beams == 1 else beam_search(model, begin, END, beams).sequences


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("endless", [False, True])
def test_forty_tokens_are_the_same(beams, tied, endless):
    for seed in range(3):
        decoder = make_decoder(seed, tied=tied)
        if endless:
            torch.nn.init.constant_(decoder.output.bias[END], -1e4)
        found = search(Cached, decoder, inputs(seed), beams)
        assert torch.equal(found, search(Anew, decoder, inputs(seed), beams))
        if endless and beams == 1:
            assert not bool((found[:, : LENGTH - 1] == END).any())


@pytest.mark.parametrize(("way", "beams"), [(Stale, 4), (Shifted, 1), (Shifted, 4)])
def test_broken_caches_are_found_out(way, beams):
    decoder = make_decoder()
    assert not torch.equal(search(way, decoder, inputs(), beams), search(Anew, decoder, inputs(), beams))


def test_logits_stay_the_same_to_the_last_position():
    decoder, given = make_decoder(layers=3, std=0.3), inputs()
    tokens = torch.randint(4, 40, (2, LENGTH), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        cached, anew = Cached(decoder, *given), Anew(decoder, *given)
        for position in range(LENGTH):
            written = tokens[:, position]
            torch.testing.assert_close(cached.step(written, position), anew.step(written, position), atol=5e-5, rtol=0)


def rows_computed(way, decoder, given, tokens):
    """Rows that pass the first layer while a text of `tokens` tokens is written."""
    rows = 0

    def count(module, args, output):
        nonlocal rows
        rows += args[0].shape[0] * args[0].shape[1]

    hook = decoder.layers[0].register_forward_hook(count)
    with torch.no_grad():
        model = way(decoder, *given)
        for position in range(tokens):
            model.step(torch.full((len(given[0]),), 5), position)
    hook.remove()
    return rows


def test_a_token_costs_one_row():
    """The work that the cache saves, counted; times are for `benchmarks/kv_cache.py`."""
    decoder, given = make_decoder(), inputs()
    context = 2 * (9 + 6)
    assert rows_computed(Cached, decoder, given, 40) == context + 2 * 40
    assert rows_computed(Anew, decoder, given, 40) == 40 * context + 2 * (40 * 41 // 2)
