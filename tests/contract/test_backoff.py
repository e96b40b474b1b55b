"""Waiting times between attempts."""

import pytest

from onlooker.operators.backoff import Backoff


def test_waits_double_up_to_the_cap_and_never_exceed_it() -> None:
    backoff = Backoff(first=0.5, cap=30, seed=1)
    longest = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    waits = [backoff.failed() for _ in longest]
    assert all(0.5 * limit <= wait <= limit for wait, limit in zip(waits, longest, strict=True))
    assert all(backoff.failed() <= 30 for _ in range(5000)), "weeks of failures overflow nothing"


def test_cameras_do_not_come_back_in_step() -> None:
    waits = {round(Backoff(seed=seed).failed(), 6) for seed in range(50)}
    assert len(waits) == 50
    assert Backoff(seed=7).failed() == Backoff(seed=7).failed()


def test_a_stream_that_lived_starts_over_and_one_that_flaps_does_not() -> None:
    backoff = Backoff(first=1, cap=64, settled=10, seed=2)
    for _ in range(5):
        backoff.failed(lived=9.9)
    assert backoff.failures == 5
    assert backoff.failed(lived=10) <= 1


def test_refusals_are_retried_slowly() -> None:
    backoff = Backoff(first=0.5, cap=30, refused=60, seed=3)
    assert 30 <= backoff.failed(refused=True) <= 60


@pytest.mark.parametrize("wrong", [{"first": 0}, {"first": 5, "cap": 1}, {"factor": 0.5}, {"refused": 0}])
def test_arguments_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match="waits"):
        Backoff(**wrong)
