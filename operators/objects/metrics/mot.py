"""Scores of tracks by a library that is kept for it: HOTA, CLEAR MOT and identity, as TrackEval defines them.

The library is `trackers` (Roboflow, Apache-2.0). It is imported when it is asked, for it brings OpenCV along.
"""

from __future__ import annotations

import numpy as np

from onlooker.operators.errors import OnlookerError

from .world import World, box_iou

__all__ = ["MOT_SCORES", "MotUnavailable", "mot_scores"]

MOT_SCORES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "Frag")


class MotUnavailable(OnlookerError):
    """The package `trackers` is not installed."""


def mot_scores(world: World, *, score: float = 0.5) -> dict[str, float]:
    """Scores of all videos together; captions do not count.

    Args:
        world: what is scored.
        score: only what was told with more than this counts.

    Returns:
        By name, see `MOT_SCORES`: fractions, and the number of changes of identity and of interruptions.

    Raises:
        MotUnavailable: `trackers` is not installed.
    """
    try:
        from trackers import eval as kept
    except ImportError as error:
        raise MotUnavailable(
            "MOTA and IDF1 need the package trackers: pip install 'trackers>=2.6', or leave them out."
        ) from error
    truth = world.truth.by_frame(len(world.videos))
    told = world.told.take(np.flatnonzero(world.told.scores > score)).by_frame(len(world.videos))
    hota, clear, identity = [], [], []
    for places in world.frames_of().values():
        true_ids, ids = [truth[i].tracks for i in places], [told[i].tracks for i in places]
        overlap = [box_iou(truth[i].boxes, told[i].boxes) for i in places]
        hota.append(kept.compute_hota_metrics(true_ids, ids, overlap))
        clear.append(kept.compute_clear_metrics(true_ids, ids, overlap))
        identity.append(kept.compute_identity_metrics(true_ids, ids, overlap))
    found = (
        kept.aggregate_hota_metrics(hota)
        | kept.aggregate_clear_metrics(clear)
        | kept.aggregate_identity_metrics(identity)
    )
    return {name: float(found[name]) for name in MOT_SCORES}
