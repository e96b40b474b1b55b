"""Contexts between decoding points against the reference: joined, rescaled, and in the whole test-time loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onlooker.operators.caption.contexts import (
    StreamingOptions,
    StreamingResult,
    drop_times,
    drop_wrong_checkpoint_segments,
    merge_tokens,
    streaming_decode,
)
from onlooker.operators.caption.time_tokens import TimeTokens

from .goldens import Case, find_cases, parametrize, require

OPTIONS = tuple(StreamingOptions.__dataclass_fields__)


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        parametrize(metafunc, "streaming_dvc", "token_postprocessing")


def test_case(case: Case | None) -> None:
    case = require(case, "the post-processing of tokens")
    if case.has("decoded"):
        check_stream(case)
    elif case.has("num_inputs"):
        parts = [case.tensor(f"in_{i}") for i in range(case.number("num_inputs"))]
        joined = merge_tokens(parts, case.number("max_text_tokens"), case.number("bos"), case.number("eos"))
        assert joined.tolist() == case.tensor("out").tolist()
    elif case.has("max_end_time"):
        kept = drop_wrong_checkpoint_segments(
            case.tensor("tokens"), times_of(case), case.number("max_end_time"), case.number("bos"), case.number("eos")
        )
        assert kept.tolist() == case.tensor("out").tolist()
    elif case.has("tokens", "ori_vocab_size", "out"):
        assert drop_times(case.tensor("tokens"), times_of(case)).tolist() == case.tensor("out").tolist()
    else:
        pytest.fail(f"{case} holds {sorted(case.arrays)}: no check knows this kind")


def check_stream(case: Case) -> None:
    result = replay(case, StreamingOptions(**{name: bool(case.number(name)) for name in OPTIONS if case.has(name)}))
    assert result.tokens.tolist() == case.tensor("final_tokens").tolist()
    for index, point in enumerate(result.points):
        # Without context the reference feeds nothing: the array is empty or not there.
        expected = case.arrays.get(f"context_fed_{index}")
        fed = None if expected is None or not expected.size else expected.tolist()
        assert (None if point.fed is None else point.fed.tolist()) == fed, index


def replay(case: Case, options: StreamingOptions) -> StreamingResult:
    """The loop over the case's scripted outputs."""
    decoded = case.tensor("decoded")  # P, B, L
    return streaming_decode(
        lambda point, context: decoded[point],
        len(decoded),
        times_of(case),
        batch=decoded.shape[1],
        length=decoded.shape[2],
        begin=case.number("bos"),
        end=case.number("eos"),
        options=options,
    )


def times_of(case: Case) -> TimeTokens:
    return TimeTokens(case.number("ori_vocab_size"), case.number("num_bins") if case.has("num_bins") else 64)


def test_a_loop_without_rescaling_is_noticed() -> None:
    """The crippled twin: times that keep their old reference frame do not give the reference's tokens."""
    cases = find_cases("streaming_dvc", "token_postprocessing", "decoded", "normalize_early_timestamps")
    rescaled = [case for case in cases if case.number("normalize_early_timestamps") and len(case.tensor("decoded")) > 1]
    if not rescaled:
        pytest.skip("no golden case rescales times")
    plain = StreamingOptions(normalize_early_timestamps=False)
    assert any(not torch.equal(replay(case, plain).tokens, case.tensor("final_tokens")) for case in rescaled)
