import pytest

from onlooker.training.schedules import SCHEDULES, LearningRate, ScheduleError


def test_there_is_one_schedule_per_released_configuration() -> None:
    assert {name: schedule.steps for name, schedule in SCHEDULES.items()} == {
        "git_anet_streaming_input_output": 5000,
        "git_youcook2_streaming_input_output": 2000,
        "git_vitt_streaming_input_output": 2000,
        "vid2seq_anet_streaming_input_output": 2700,
        "vid2seq_youcook2_streaming_input_output": 4920,
        "vid2seq_vitt_streaming_input_output": 2880,
        "git_anet_paragraph_streaming_input": 5000,
        "git_youcook2_paragraph_streaming_input": 5000,
    }


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_and_never_rises_again(name: str) -> None:
    schedule = SCHEDULES[name]
    rates = [schedule.rate(step) for step in range(schedule.steps)]
    warm = schedule.rate.warmup_steps
    assert rates[0] == 0.0
    assert rates[warm] == pytest.approx(schedule.rate.base)
    assert rates[: warm + 1] == sorted(rates[: warm + 1])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)


def test_a_decay_holds_after_its_event_and_is_a_share_of_the_base() -> None:
    rate = LearningRate(2.0, decay_events=(10, 20), decay_factors=(0.5, 0.1))
    assert [rate(step) for step in (0, 10, 11, 20, 21, 99)] == pytest.approx([2.0, 2.0, 1.0, 1.0, 0.2, 0.2])


def test_the_cosine_ends_near_zero_and_then_starts_again() -> None:
    rate = LearningRate(1.0, warmup_steps=10, cosine_steps=110)
    assert rate(60) == pytest.approx(0.5)
    assert 0 < rate(109) < 1e-3
    assert rate(110) == pytest.approx(1.0)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ScheduleError, match="1 decay events with 0 factors"):
        LearningRate(1.0, decay_events=(10,))
    with pytest.raises(ScheduleError, match="cosine_steps 10 must be more than the 10"):
        LearningRate(1.0, warmup_steps=10, cosine_steps=10)
