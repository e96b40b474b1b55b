"""How objects of generated videos move: swinging, growing, changing in light, pausing, coming and going."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Motion", "Place", "random_motion", "rival_of"]

_PASSAGE = 1.0
"""Seconds in which an object comes in from beyond the edge or leaves."""
_BEYOND = 1.6
"""How far from its path, in sides of the picture, an object is when it comes or has left."""


@dataclass(frozen=True)
class Place:
    """Where an object is at a moment: its centre as shares of the picture, its size and brightness as factors."""

    x: float
    y: float
    scale: float
    light: float


@dataclass(frozen=True)
class Wave:
    """middle + swing * sin(2 pi (rate * t + phase)), t in seconds."""

    middle: float
    swing: float
    rate: float
    phase: float

    def at(self, t: float) -> float:
        """Return the value at `t`."""
        return self.middle + self.swing * math.sin(2 * math.pi * (self.rate * t + self.phase))


@dataclass(frozen=True)
class Motion:
    """A smooth path; outside its life the object is not there, during its pause it stands still."""

    x: Wave
    y: Wave
    size: Wave
    """Logarithm of the factor of its size."""
    light: Wave
    life: tuple[float, float] = (-math.inf, math.inf)
    """From when to when it is there, seconds."""
    side: tuple[float, float] = (0.0, 0.0)
    """Direction from which it comes and to which it leaves."""
    pause: tuple[float, float] = (math.inf, math.inf)
    """From when to when it stands still, seconds."""

    def at(self, t: float) -> Place | None:
        """Return where the object is at `t`; None before and after its life."""
        start, end = self.life
        if not start <= t < end:
            return None
        away = _BEYOND * (1 - _eased(min(t - start, end - t) / _PASSAGE))
        begin, stop = self.pause
        own = t if t < begin else max(begin, t - (stop - begin))  # its own time stands still in the pause
        return Place(
            self.x.at(own) + away * self.side[0],
            self.y.at(own) + away * self.side[1],
            math.exp(self.size.at(own)),
            self.light.at(t),
        )


def random_motion(
    rng: np.random.Generator, seconds: float, rate: tuple[float, float], swing: tuple[float, float], leave: float
) -> Motion:
    """Draw a motion for a video of some length.

    Args:
        rng: of all choices.
        seconds: length of the video.
        rate: range of swings a second across the picture.
        swing: range of how far a swing goes, as shares of the picture.
        leave: chance that the object comes late, leaves early or both.
    """

    def wave(middle: tuple[float, float], swings: tuple[float, float], rates: tuple[float, float]) -> Wave:
        return Wave(rng.uniform(*middle), rng.uniform(*swings), rng.uniform(*rates), rng.uniform())

    x = wave((0.35, 0.65), swing, rate)
    y = wave((0.4, 0.6), (swing[0] / 2, swing[1] / 2), rate)
    size = wave((-0.1, 0.1), (0.0, 0.3), (0.03, 0.12))
    light = wave((0.9, 1.1), (0.0, 0.2), (0.05, 0.3))
    motion = Motion(x, y, size, light)
    if rng.random() < leave:
        start = rng.uniform(0, seconds / 3) if rng.random() < 0.6 else -math.inf
        end = rng.uniform(seconds * 2 / 3, seconds) if start < 0 or rng.random() < 0.5 else math.inf
        motion = replace(motion, life=(start, end), side=(float(rng.choice([-1.0, 1.0])), 0.0))
    return motion


def rival_of(motion: Motion, rng: np.random.Generator) -> Motion:
    """Return a motion that swings against the given one about the same middle: the two cross, twice a swing."""
    x = replace(motion.x, phase=motion.x.phase + 0.5)
    y = replace(motion.y, middle=motion.y.middle + rng.uniform(-0.08, 0.08), phase=rng.uniform())
    size = replace(motion.size, phase=rng.uniform())
    light = replace(motion.light, phase=rng.uniform())
    return Motion(x, y, size, light)


def _eased(share: float) -> float:
    """Smooth step from 0 to 1."""
    share = min(1.0, max(0.0, share))
    return share * share * (3 - 2 * share)
