"""Learning rates of the released configurations against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from onlooker.training.schedules import SCHEDULES, LearningRate

from .goldens import Case, find_cases, parametrize, require


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        parametrize(metafunc, "streaming_dvc", "lr_schedules")


def agrees(rate: LearningRate, case: Case) -> bool:
    """Within the float32 in which the reference computes."""
    expected = case.arrays["lr"]
    actual = np.array([rate(int(step)) for step in case.arrays["steps"]])
    return bool(np.allclose(actual, expected, rtol=1e-6, atol=1e-6 * rate.base))


def test_case(case: Case | None) -> None:
    case = require(case, "learning rates")
    assert case.name in SCHEDULES, f"{case}: no schedule of this name; there are {', '.join(SCHEDULES)}"
    schedule = SCHEDULES[case.name]
    if case.has("num_training_steps"):
        assert schedule.steps == case.number("num_training_steps")
    assert agrees(schedule.rate, case)


def test_a_schedule_without_its_warmup_is_noticed() -> None:
    """The crippled twin: no warm-up, no decay."""
    cases = find_cases("streaming_dvc", "lr_schedules", "steps", "lr")
    assert cases, "no golden case for learning rates: nothing was compared"
    rates = [(SCHEDULES[case.name].rate, case) for case in cases]
    assert any(not agrees(replace(rate, warmup_steps=0), case) for rate, case in rates)
    assert any(not agrees(LearningRate(rate.base, rate.warmup_steps), case) for rate, case in rates)
