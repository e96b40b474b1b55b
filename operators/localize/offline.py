"""Moments of a whole clip at once: what the online operator comes to when it may wait for the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..packets import FloatArray
from .class_lists import query_prompts
from .live_segments import Found
from .moment_candidates import found_segments
from .moment_model import MomentModel
from .unloc.nms import NmsOptions
from .windows import Pool, Ring, Window, WindowPlan

__all__ = ["find_moments", "pool_clip"]


def find_moments(
    model: MomentModel,
    plan: WindowPlan,
    features: FloatArray,
    times: Sequence[float],
    texts: Sequence[str],
    options: NmsOptions | None = None,
) -> list[list[Found]]:
    """The segments of what is asked for in a clip.

    A clip of at most T frames is one window, as in UnLoc. A longer one is covered by windows `plan.hop` frames apart,
    whose logits and displacements are averaged before anything is decoded or suppressed.

    Args:
        model: the localizer.
        plan: its windows.
        features: (F, E) float32 raw features of the frames.
        times: their media times in seconds, F of them, increasing.
        texts: what to look for, in words.
        options: of the suppression; default: UnLoc's.

    Returns:
        For each of them its segments in seconds, by descending score.
    """
    windows = _windows(model, plan, features, times)
    if not windows:
        return [[] for _ in texts]
    pools, whole, clip = pool_clip(model, plan, windows, model.read_texts([query_prompts(text) for text in texts]))
    return [found_segments(pool, clip, whole, options or NmsOptions()) for pool in pools]


def pool_clip(
    model: MomentModel, plan: WindowPlan, windows: Sequence[Window], vectors: Sequence[FloatArray]
) -> tuple[list[Pool], WindowPlan, Window]:
    """What all windows of a clip say for each (D,) text vector; also the clip's geometry, and the clip as a window."""
    whole = replace(plan, frames=windows[-1].origin + plan.frames)
    pools = [Pool.empty(whole) for _ in vectors]
    seconds: dict[int, float] = {}
    for window in windows:
        seconds.update(enumerate(window.times, window.origin))
        where = _places(window, plan, whole)
        said = model.score([(window, vector) for vector in vectors], plan)
        for pool, (logits, boxes) in zip(pools, said, strict=True):
            pool.mix(where, window, logits, boxes, plan)
    times = tuple(seconds[slot] for slot in sorted(seconds))
    return pools, whole, Window(0, len(times), np.zeros((0, 0), np.float32), times, last=True)


def _windows(model: MomentModel, plan: WindowPlan, features: FloatArray, times: Sequence[float]) -> list[Window]:
    """Full windows, and one that ends with the clip; each that begins where the one before did takes its place."""
    ring = Ring()
    found: dict[int, Window] = {}
    for t, row in zip(times, features, strict=True):
        found.update((window.origin, window) for window in ring.push(t, model.project_frame(row), plan))
    if (last := ring.close(plan)) is not None:
        found[last.origin] = last
    return list(found.values())


def _places(window: Window, plan: WindowPlan, whole: WindowPlan) -> npt.NDArray[np.intp]:
    """(N,) where the anchors of a window stand among those of the clip."""
    places, start = [], 0
    for level, (length, total) in enumerate(zip(plan.lengths, whole.lengths, strict=True)):
        first = start + window.origin // plan.stride**level
        places.append(np.arange(first, first + length))
        start += total
    return np.concatenate(places)
