"""Learning rates of the configurations that UnLoc's authors released (Yan et al., ICCV 2023).

All train by SGD with momentum 0.9, no weight decay, and gradients clipped to a norm of 1. Steps are batches of 64
videos; what is left over at the end of an epoch is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onlooker.training.schedules import LearningRate, Schedule

_BASE, _BATCH = 0.01, 64


@dataclass(frozen=True)
class UnlocSchedule(Schedule):
    """Length and learning rates of a training run.

    Attributes:
        steps: number of training steps.
        rate: of towers and projections.
        fast: of fusion and head in multiples of `rate`.
    """

    fast: float = 10.0


def _unloc(
    epochs: int, videos: int, warm: float, decay_after: int | None = None, cosine: bool = False
) -> UnlocSchedule:
    """Epochs of warm-up, and the epoch after which the rate falls to a tenth."""
    each = videos // _BATCH
    steps = epochs * each
    rate = LearningRate(_BASE, warm * each, cosine_steps=steps if cosine else None)
    if decay_after is not None:
        rate = replace(rate, decay_events=(decay_after * each,), decay_factors=(0.1,))
    return UnlocSchedule(steps, rate)


_QVH = _unloc(30, 5849, 2.5, cosine=True)

UNLOC_SCHEDULES = {
    "qvh_b": _QVH,
    "qvh_l": _QVH,
    "charades_b": _unloc(30, 12408, 5),
    # The falls of anetcap_b and tal_l come after their last epoch.
    "anetcap_b": _unloc(20, 9941, 2.5, 25),
    "anetcap_l": _unloc(40, 9941, 5, 35),
    "tal_b": _unloc(20, 9941, 2.5, 18),
    "tal_l": replace(_unloc(30, 9941, 5, 35), fast=1.0),
    # A tenth at every 6600 steps, from that step on.
    "coin_l": UnlocSchedule(55 * (8461 // _BATCH), LearningRate(_BASE, 500, (6599, 13199), (0.1, 0.01))),
}
"""By the names of `onlooker.operators.localize.unloc.presets`."""
