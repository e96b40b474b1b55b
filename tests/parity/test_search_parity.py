"""Greedy and beam search against the reference, on a language model that is a table."""

from __future__ import annotations

import re
from typing import Any

import torch

from onlooker.operators.caption.search import beam_search, greedy_search

from .goldens import Case, assert_close, parametrize, require


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize(metafunc, "streaming_dvc", "decoding", "table")


class TableModel:
    """logits(row, position, last token) = table[row, position, last token]."""

    def __init__(self, table: torch.Tensor, beams: int) -> None:
        self.table = table.repeat_interleave(beams, 0)
        self.rows = torch.arange(len(self.table))
        self.beams = beams

    def step(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        return self.table[self.rows, position, tokens]

    def reorder(self, rows: torch.Tensor) -> None:
        # The table depends on the last token only; what must hold is that beams never leave their batch item.
        assert torch.equal(rows // self.beams, self.rows // self.beams)


def test_greedy(case: Case | None) -> None:
    case = require(case, "greedy decoding")
    tokens, mean = greedy_search(TableModel(case.tensor("table"), 1), case.tensor("begin_tokens"), case.number("eos"))
    assert tokens.tolist() == case.tensor("greedy_tokens").tolist()
    assert_close(mean, case.tensor("greedy_mean_logprob"))


def test_beam(case: Case | None) -> None:
    case = require(case, "beam search")
    beams = {int(match[1]) for name in case.arrays if (match := re.fullmatch(r"beam(\d+)_best", name))}
    assert beams, f"{case} holds no beam search result"
    for beam in beams:
        result = beam_search(
            TableModel(case.tensor("table"), beam),
            case.tensor("begin_tokens"),
            case.number("eos"),
            beam,
            case.number("alpha"),
        )
        assert result.best.tolist() == case.tensor(f"beam{beam}_best").tolist()
        assert result.sequences.tolist() == case.tensor(f"beam{beam}_sequences").tolist()
        torch.testing.assert_close(result.scores, case.tensor(f"beam{beam}_scores"), atol=5e-5, rtol=1e-6)
