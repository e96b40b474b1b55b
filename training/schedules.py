"""Learning rates of the released configurations of Streaming Dense Video Captioning (Zhou et al., CVPR 2024).

The three factors and their edges (a decay starts one step *after* its event, the cosine starts again after its cycle)
are those of the reference's schedules, so that a run can be continued or compared step by step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onlooker.operators.errors import OnlookerError


class ScheduleError(OnlookerError):
    """A learning rate that cannot be computed."""


@dataclass(frozen=True)
class LearningRate:
    """base * warm-up * steps down * cosine; factors that are not set are 1.

    Attributes:
        base: learning rate after warm-up.
        warmup_steps: linear from 0 at step 0 to 1.
        decay_events: increasing steps after which `decay_factors` hold.
        decay_factors: share of the base rate after each event, not of the rate before it.
        cosine_steps: steps of the whole run: after the warm-up the rate falls along half a cosine, to (nearly) 0 at the
            last step. A warm-up that ends between two steps makes it last up to one step longer.
    """

    base: float
    warmup_steps: float = 0
    decay_events: tuple[int, ...] = ()
    decay_factors: tuple[float, ...] = ()
    cosine_steps: int | None = None

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        if len(self.decay_events) != len(self.decay_factors):
            raise ScheduleError(
                f"{len(self.decay_events)} decay events with {len(self.decay_factors)} factors: give one per event"
            )
        if self.cosine_steps is not None and self.cosine_steps <= self.warmup_steps:
            raise ScheduleError(
                f"cosine_steps {self.cosine_steps} must be more than the {self.warmup_steps} steps of warm-up"
            )

    def __call__(self, step: int) -> float:
        """Rate at a step, counted from 0."""
        return self.base * self._warmup(step) * self._steps_down(step) * self._cosine(step)

    def _warmup(self, step: int) -> float:
        return min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0

    def _steps_down(self, step: int) -> float:
        passed = sum(event < step for event in self.decay_events)
        return self.decay_factors[passed - 1] if passed else 1.0

    def _cosine(self, step: int) -> float:
        if self.cosine_steps is None:
            return 1.0
        cycle = math.ceil(self.cosine_steps - self.warmup_steps)
        progress = max(0, step - self.warmup_steps) % cycle / cycle
        return 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a training run.

    Attributes:
        steps: number of training steps.
        rate: the learning rate.
    """

    steps: int
    rate: LearningRate


def _git(base: float, steps: int, decay_at: int) -> Schedule:
    return Schedule(steps, LearningRate(base, 250, (decay_at,), (0.1,)))


def _vid2seq(base: float, epochs: int, videos: int) -> Schedule:
    steps = epochs * (videos // 32)  # batches of 32, the rest of an epoch is dropped
    return Schedule(steps, LearningRate(base, steps // 10, cosine_steps=steps))


SCHEDULES = {
    "git_anet_streaming_input_output": _git(1e-5, 5000, 4000),
    # These two have a decay at their last step, which so never takes effect.
    "git_youcook2_streaming_input_output": _git(2e-5, 2000, 2000),
    "git_vitt_streaming_input_output": _git(1e-5, 2000, 2000),
    "vid2seq_anet_streaming_input_output": _vid2seq(1e-4, 10, 8649),
    "vid2seq_youcook2_streaming_input_output": _vid2seq(1e-5, 120, 1333),
    "vid2seq_vitt_streaming_input_output": _vid2seq(2e-4, 20, 4608),
    "git_anet_paragraph_streaming_input": _git(2e-5, 5000, 4000),
    "git_youcook2_paragraph_streaming_input": _git(2e-5, 5000, 4000),
}
"""By the names of the reference's configurations."""
