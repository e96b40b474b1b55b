import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onlooker.operators.caption.search import beam_search, brevity_penalty, greedy_search, top_lowest_index

END = 2


class Table:
    """logits(position, last token), the same for every row."""

    def __init__(self, table):
        self.table = table

    def step(self, tokens, position):
        return self.table[position, tokens]

    def reorder(self, rows):
        pass


def begin(batch, length):
    tokens = torch.full((batch, length), END)
    tokens[:, 0] = 1
    return tokens


def best_of_all(table, length, alpha):
    """Score of the best finished text, by trying every text."""
    logprobs = torch.log_softmax(table, -1)
    best = -torch.inf
    live = [((1,), 0.0)]
    for position in range(length - 2):
        grown = [
            ((*text, token), score + float(logprobs[position, text[-1], token]))
            for text, score in live
            for token in range(table.shape[-1])
        ]
        ended = [score / brevity_penalty(position + 1, alpha) for text, score in grown if text[-1] == END]
        best = max(best, *ended)
        live = [(text, score) for text, score in grown if text[-1] != END]
    return best


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.6, 1.0]))
def test_wide_beams_find_the_best_text_of_all(seed, alpha):
    table = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2
    result = beam_search(Table(table), begin(1, 6), END, beam=64, alpha=alpha)
    assert float(result.scores[0, -1]) == pytest.approx(best_of_all(table, 6, alpha), abs=1e-4)


@given(st.integers(0, 2**31))
def test_an_item_does_not_depend_on_its_neighbours(seed):
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.randn(8, 6, 6, generator=generator) for _ in range(2)]

    class Two:
        def step(self, tokens, position):
            first, second = tokens.chunk(2)
            return torch.cat([tables[0][position, first], tables[1][position, second]])

        def reorder(self, rows):
            pass

    both = beam_search(Two(), begin(2, 9), END, 3).best
    for item, table in enumerate(tables):
        assert torch.equal(both[item], beam_search(Table(table), begin(1, 9), END, 3).best[0])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_equal_values_come_by_lowest_index(values, data):
    k = data.draw(st.integers(1, len(values)))
    top, index = top_lowest_index(torch.tensor([values], dtype=torch.float32), k)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert index[0].tolist() == expected and top[0].tolist() == [values[i] for i in expected]


def test_a_text_that_never_ends_is_given_as_it_stands():
    table = torch.zeros(6, 4, 4)
    table[..., END] = -1e9
    table[..., 3] = 1.0
    result = beam_search(Table(table), begin(1, 6), END, 2)
    assert result.best[0].tolist() == [1, 3, 3, 3, 3, END]


def test_greedy_never_repeats_a_token_at_once():
    table = torch.zeros(6, 4, 4)
    table[..., 3] = 5.0
    table[..., 0] = 1.0
    tokens, _ = greedy_search(Table(table), begin(1, 7), END)
    assert tokens[0].tolist() == [1, 3, 0, 3, 0, 3, END]
