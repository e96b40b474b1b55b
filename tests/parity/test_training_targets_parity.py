"""Training targets of dense captioning against the reference, with its random draws replayed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onlooker.operators.caption.time_tokens import TimeTokens
from onlooker.training.dvc_targets import (
    AnnotatedVideo,
    DenseTargets,
    RowFormat,
    TargetOptions,
    streaming_targets,
    whole_video_row,
)

from .goldens import Case, find_cases, parametrize, require

SPECIAL = {30522: (101, 102), 32128: (0, 1)}
"""Begin and end token by the number of words: BERT's and T5's, for cases that do not name them."""


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        parametrize(metafunc, "streaming_dvc", "training_targets")


class Replay:
    """The draws that the reference made, in their order."""

    def __init__(self, case: Case) -> None:
        self.values = [case.arrays[f"random_{i}"] for i in range(case.number("num_random_draws"))]
        self.used = 0

    def _next(self) -> npt.NDArray[Any]:
        assert self.used < len(self.values), f"more than the {len(self.values)} draws of the reference were asked for"
        self.used += 1
        return self.values[self.used - 1]

    def integers(self, low: int, high: int, /) -> int:
        value = int(self._next())
        assert low <= value < high, f"the reference drew {value}, outside {low} .. {high - 1}"
        return value

    def random(self, size: int, /, *, dtype: type[np.float32]) -> npt.NDArray[np.float32]:
        values = self._next()
        assert values.shape == (size,)
        return values.astype(dtype)


def test_case(case: Case | None) -> None:
    case = require(case, "training targets")
    if case.has("num_dense_outputs"):
        draws = Replay(case)
        targets = streaming_targets(video_of(case), rows_of(case), options_of(case), draws)
        assert draws.used == len(draws.values)
        expected = [name for name in ("text_tokens", "context_tokens", "checkpoint_inds") if case.has(name)]
        assert "text_tokens" in expected
        for name in expected:
            assert getattr(targets, name).tolist() == case.tensor(name).tolist(), name
    elif case.has("text_tokens", "start_us"):
        assert [whole_video_row(video_of(case), rows_of(case)).tolist()] == case.tensor("text_tokens").tolist()
    else:
        pytest.fail(f"{case} holds {sorted(case.arrays)}: no check knows this kind")


def video_of(case: Case) -> AnnotatedVideo:
    captions = [[int(word) for word in text.split()] for text in json.loads(str(case.arrays["captions_as_ids"]))]
    return AnnotatedVideo(case.arrays["start_us"], case.arrays["end_us"], case.number("duration_us"), captions)


def rows_of(case: Case) -> RowFormat:
    words = case.number("vocab_size")
    begin, end = (case.number("bos_id"), case.number("eos_id")) if case.has("bos_id") else SPECIAL[words]
    return RowFormat(
        TimeTokens(words, case.number("num_bins")),
        begin,
        end,
        case.number("max_text_tokens"),
        case.number("max_single_text_tokens"),
    )


def options_of(case: Case) -> TargetOptions:
    def flag(name: str) -> bool:
        return bool(case.number(name))

    return TargetOptions(
        num_dense_outputs=case.number("num_dense_outputs"),
        normalize_early_timestamps=flag("normalize_early_timestamps"),
        no_timestamp_in_context=flag("no_timestamp_in_context"),
        dynamic_location=flag("dynamic_location"),
        continuous_random_mask=flag("continuous_random_mask"),
        context_mask_ratio=case.number("context_mask_ratio"),
        only_use_augmented_context=flag("only_use_augmented_context"),
    )


class Constant:
    """Draws that are always the lowest."""

    def integers(self, low: int, high: int, /) -> int:
        return low

    def random(self, size: int, /, *, dtype: type[np.float32]) -> npt.NDArray[np.float32]:
        return np.zeros(size, dtype)


def test_targets_without_the_draws_are_noticed() -> None:
    """The crippled twin: the same events with other draws give other targets."""
    cases = find_cases("streaming_dvc", "training_targets", "num_random_draws")
    assert cases, "no golden case with random draws: nothing was compared"

    def crippled(case: Case) -> DenseTargets:
        return streaming_targets(video_of(case), rows_of(case), options_of(case), Constant())

    assert any(crippled(case).text_tokens.tolist() != case.tensor("text_tokens").tolist() for case in cases)
