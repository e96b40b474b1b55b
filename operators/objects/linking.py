"""Which track each detection of a window belongs to: groups of one window joined to identities for good.

Source of the groups: the greedy assignment of Dense VOC (`densevoc/identity.py`), which sees a clip as a whole and
numbers its groups anew each time. What joins them to a stream without end is ours: groups take the identity that most
of their members already have, and what has an identity keeps it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

__all__ = ["CLOSED", "NONE", "link"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NONE = -1
"""Identity of a detection that belongs to no track yet."""
CLOSED = -2
"""Identity of a detection whose track was ended early: it counts for nothing any more."""


def link(groups: Ints, identities: Ints, frames: Ints, ready: Bools, strong: Bools, next_identity: int) -> Ints:
    """Identities of the detections of a window, in the order of time, after its groups were formed.

    Groups and identities are paired by how many detections they share, most first (ties: the older identity), each of
    both once. A group without an identity begins a track if two of its detections have none, or one of them is
    strong; tracks that begin together are numbered by their first detections. A detection with an identity keeps it,
    and no identity is given twice in a frame.

    Args:
        groups: (M,) group of each detection, 0 = none; one detection of a frame at most in each group.
        identities: (M,) what is known: an identity from 0, `NONE` or `CLOSED`.
        frames: (M,) frame number of each detection.
        ready: (M,) whether a detection may be given an identity now; the others only count.
        strong: (M,) whether a detection can begin a track alone.
        next_identity: the first that is free.

    Returns:
        (M,) identities, `NONE` where there is still none.
    """
    linked = identities.copy()
    owner = _pair(groups, identities)
    for group in dict.fromkeys(groups[groups > 0].tolist()):  # in the order of their first detections
        waiting = np.flatnonzero((groups == group) & (identities == NONE))
        chosen = waiting[ready[waiting]]
        identity = owner.get(group)
        if identity is None:
            if not len(chosen) or not (len(waiting) >= 2 or strong[waiting].any()):
                continue
            identity, next_identity = next_identity, next_identity + 1
        taken = set(frames[identities == identity].tolist())
        linked[[i for i in chosen.tolist() if frames[i] not in taken]] = identity
    return linked


def _pair(groups: Ints, identities: Ints) -> dict[int, int]:
    """The identity of each group that gets one it shares detections with."""
    known = (groups > 0) & (identities >= 0)
    shared = Counter(zip(groups[known].tolist(), identities[known].tolist(), strict=True))
    owner: dict[int, int] = {}
    for group, identity in sorted(shared, key=lambda pair: (-shared[pair], pair[1], pair[0])):
        if group not in owner and identity not in owner.values():
            owner[group] = identity
    return owner
