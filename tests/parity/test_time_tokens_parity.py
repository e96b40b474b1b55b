"""Time tokens and the events read from token sequences, against the reference."""

from __future__ import annotations

import builtins
import json
from typing import Any

import pytest

from onlooker.operators.caption.dense_events import DenseEvent, caption_text, parse_events
from onlooker.operators.caption.time_tokens import TimeFormat, TimeTokens

from .goldens import Case, find_cases, parametrize, require

BERT_WORDS = 30522
BERT_END, T5_END = 102, 1


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        parametrize(metafunc, "streaming_dvc", "time_tokens_and_events")


def test_case(case: Case | None) -> None:
    case = require(case, "time tokens and events")
    if case.has("start_us", "tokens"):
        assert encode(case).tolist() == case.tensor("tokens").tolist()
    elif case.has("seq", "error"):
        check_events(case)
    else:
        pytest.fail(f"{case} holds {sorted(case.arrays)}: no check knows this kind")


def times_of(case: Case) -> TimeTokens:
    return TimeTokens(case.number("vocab_size"), case.number("num_bins"))


def encode(case: Case) -> Any:
    # The format is the only setting that the goldens keep in the name of a case and not in an array.
    time_format: TimeFormat = "cd" if "_cd_format" in case.name else "se"
    return times_of(case).encode(
        case.arrays["start_us"], case.arrays["end_us"], case.number("duration_us"), time_format
    )


def parse(case: Case) -> list[DenseEvent]:
    return parse_events(case.tensor("seq").tolist(), times_of(case), case.number("duration_us"))


def check_events(case: Case) -> None:
    error = json.loads(str(case.arrays["error"]))
    if error:
        with pytest.raises(getattr(builtins, error)):
            parse(case)
        return
    events = parse(case)
    assert [[event.start_bin, event.end_bin] for event in events] == json.loads(str(case.arrays["bins"]))
    assert [[event.start_us, event.end_us] for event in events] == json.loads(str(case.arrays["times_us"]))
    stop = {0, BERT_END if case.number("vocab_size") == BERT_WORDS else T5_END}
    texts = [caption_text(event.tokens, lambda ids: " ".join(map(str, ids)), stop) for event in events]
    assert texts == json.loads(str(case.arrays["captions"]))


def test_rounding_is_noticed() -> None:
    """The crippled twin: the nearest bin instead of the one below."""
    cases = find_cases("streaming_dvc", "time_tokens_and_events", "start_us", "tokens")
    assert cases, "no golden case for time tokens: nothing was compared"

    def crippled(case: Case) -> Any:
        share = case.arrays["end_us"] / case.number("duration_us")
        return (share * (case.number("num_bins") - 1)).round().astype(int) + case.number("vocab_size")

    assert any(crippled(case).tolist() != case.tensor("tokens")[:, 1].tolist() for case in cases)
