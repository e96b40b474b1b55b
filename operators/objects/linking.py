"""Which track each detection of a window belongs to: out of what speaks for it and against it, for good.

The greedy assignment of Dense VOC (`densevoc/identity.py`) sees a clip as a whole. A stream has no whole, and groups
of a window that are formed anew with every frame switch too easily: here it decides only who begins a track. Who is
known goes on much as in Zhou et al., "Global Tracking Transformers" (CVPR 2022), whose transformer this is: a track as
a whole is compared with the detections of a frame, one to one, here by the best assignment of all (Hungarian).

The association's score alone loses those who hide: a detection that is seen in part again looks like nobody. So the
odds that a detection is the object of a track add up the score, what it looks like (`looks`), its size, and, of a track
that was seen in the frame before, where it was going. The weights of this logistic regression were fitted on 26
generated videos of Flickr8k train, true boxes and those of the embedded detector; that of the size (fitted: -1.7, but
who comes out from behind something is small at first) and the least odds were chosen on 30 of dev. Fitted again with
the object model that followed, they come out nearly the same. Where an object was lost says little about where it comes
back, and added nothing; neither did waiting before a track begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ..packets import FloatArray
from .densevoc.identity import assign_identities

__all__ = ["CLOSED", "NONE", "Known", "link"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NONE = -1
"""Identity of a detection that belongs to no track yet."""
CLOSED = -2
"""Identity of a detection whose track was ended early: it counts for nothing any more."""

_ALIKE = 3
"""Detections of a track whose looks a new one is compared with: those most like it; others show other sides."""
_LEAST_ODDS = -3.0
"""Logarithm, from which a track goes on. Lower ones keep more of those who hide, and give more of those who come in
new the identity of one who left."""
# Of the logarithm of the odds.
_BIAS, _SCORE, _LOOKS, _SIZE = -4.25, 0.35, 9.6, -1.0
_NEAR, _FAR = 2.06, -13.9
"""Of who was seen in the frame before: that it was, and how far it is from where it should be, in pictures."""
_SURE = 1e-3
"""Scores nearer to 0 or 1 are taken as if they were this near."""
_OTHER_SIZE = 3.0
"""Difference of the logarithms of areas beyond which more says nothing more: most of it is hidden."""


@dataclass(frozen=True, slots=True)
class Known:
    """The M detections of a window, in the order of time.

    Attributes:
        frames: (M,) frame number of each.
        boxes: (M, 4) x0, y0, x1, y1 as parts of the picture.
        sure: (M,) scores of the detections themselves.
        looks: (M, D) what each looks like, see `looks`.
    """

    frames: Ints
    boxes: FloatArray
    sure: FloatArray
    looks: FloatArray


def link(
    scores: FloatArray,
    identities: Ints,
    known: Known,
    ready: Bools,
    threshold: float,
    birth: float,
    next_identity: int,
) -> Ints:
    """Identities of the detections of a window, in the order of time.

    First tracks go on: of the detections of each frame that have no identity, and the tracks that have none there, as
    many become one as are likely to be, so that all together are likeliest. What is left is grouped; a group begins a
    track if it is believed, by one detection or several. Tracks that begin together are numbered by their first
    detections. A detection with an identity keeps it, and no identity is given twice in a frame.

    Args:
        scores: (M, M) float32, how likely row and column are the same object.
        identities: (M,) what is known: an identity from 0, `NONE` or `CLOSED`.
        known: the detections.
        ready: (M,) whether a detection may be given an identity now; the others only count.
        threshold: lowest score that associates detections which no track wants.
        birth: sum of scores of its detections with which a group is believed to be an object.
        next_identity: the first that is free.

    Returns:
        (M,) identities, `NONE` where there is still none. Without any identity before, all of them being ready, the
        groups are those of the paper that are believed.
    """
    linked = identities.copy()
    alike: FloatArray = (scores + scores.T) * np.float32(0.5)
    for frame in np.unique(known.frames[ready & (linked == NONE)]).tolist():
        here = known.frames == frame
        new = np.flatnonzero(here & ready & (linked == NONE))
        tracks = np.setdiff1d(linked[linked >= 0], linked[here])
        if len(tracks):
            odds = np.stack([_odds(alike, known, new, np.flatnonzero(linked == k), frame) for k in tracks], axis=1)
            gain = np.maximum(odds - _LEAST_ODDS, 0.0)
            for i, j in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
                if gain[i, j] > 0:
                    linked[new[i]] = tracks[j]
    rest = np.flatnonzero(linked == NONE)
    groups = assign_identities(scores[np.ix_(rest, rest)], known.frames[rest], threshold)
    for group in dict.fromkeys(groups[groups > 0].tolist()):  # in the order of their first detections
        members = rest[groups == group]
        if ready[members].any() and known.sure[members].sum() >= birth:
            linked[members[ready[members]]] = next_identity
            next_identity += 1
    return linked


def _odds(alike: FloatArray, known: Known, new: Ints, own: Ints, frame: int) -> FloatArray:
    """Logarithm of the odds (N,) that the detections `new` of a frame are the object of the track with those `own`."""
    score = np.clip(alike[np.ix_(new, own)].mean(1), _SURE, 1 - _SURE)
    looks = np.sort(known.looks[new] @ known.looks[own].T, axis=1)[:, -_ALIKE:].mean(1)
    away = np.abs(known.frames[own] - frame)
    last = own[np.flatnonzero(away == away.min())[-1]]
    size = np.abs(_log_areas(known.boxes[new]) - _log_areas(known.boxes[[last]]))
    odds: FloatArray = (
        _BIAS + _SCORE * np.log(score / (1 - score)) + _LOOKS * looks + _SIZE * np.minimum(size, _OTHER_SIZE)
    )
    if away.min() == 1:
        odds = odds + _NEAR + _FAR * _astray(known, new, own, int(last), frame)
    return odds


def _astray(known: Known, new: Ints, own: Ints, last: int, frame: int) -> FloatArray:
    """How far (N,) from where the track stayed or, if that is nearer, went on as it had moved between two frames."""
    centre = (known.boxes[:, :2] + known.boxes[:, 2:]) / 2
    astray: FloatArray = np.linalg.norm(centre[new] - centre[last], axis=1)
    before = own[known.frames[own] == 2 * known.frames[last] - frame]
    if len(before):
        astray = np.minimum(astray, np.linalg.norm(centre[new] - 2 * centre[last] + centre[before[0]], axis=1))
    return astray


def _log_areas(boxes: FloatArray) -> FloatArray:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    areas: FloatArray = np.log(sides).sum(1)
    return areas
