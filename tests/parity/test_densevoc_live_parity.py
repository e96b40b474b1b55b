"""Tracking of a stream against the reference's of a whole clip: where the window covers it, identities are the same."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from onlooker.operators.objects.linking import NONE
from onlooker.operators.objects.window import Seen, Window, WindowRules

from .goldens import Case, parametrize, require

IDS = re.compile(r"ids_thr(\d*\.\d+)")


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize(metafunc, "dense_voc", "a_id_assignment", "asso_scores", "identity")


def frame(number: int, count: int) -> Seen:
    """Detections whose token is their number in the clip."""
    tokens = np.arange(number * count, (number + 1) * count, dtype=np.float32)[:, None]
    boxes, looks = np.zeros((count, 4), np.float32), np.zeros((count, 1), np.float16)
    return Seen(0, float(number), boxes, np.full(count, 0.5, np.float32), tokens, looks)


def watched(scores: Any, frames: int, rules: WindowRules, every_frame: bool) -> list[int]:
    """Identities of all detections of a clip that comes as a stream."""
    window = Window()
    whole = [frame(number, len(scores) // frames) for number in range(frames)]

    def relate(tokens: Any) -> Any:
        index = tokens[:, 0].astype(int)
        return scores[np.ix_(index, index)]

    for seen in whole:
        window.push(seen, rules)
        if every_frame:
            window.settle(relate, rules)
    window.settle(relate, rules, last=True)
    return [identity for seen in whole for identity in seen.identities.tolist()]


def same_but_for_numbers(found: list[int], expected: list[int]) -> bool:
    """Whether each identity of one list is one identity of the other."""
    pairs = set(zip(found, expected, strict=True))
    return len(pairs) == len(set(found)) == len(set(expected))


@pytest.mark.parametrize("every_frame", [False, True], ids=["one-commit", "as-late-as-can-be"])
def test_a_clip_no_longer_than_the_window_is_tracked_as_offline(case: Case | None, every_frame: bool) -> None:
    case = require(case, "live identities")
    scores = case.arrays["asso_scores"]
    scores = scores.reshape(scores.shape[-2:])
    frames = len(case.arrays["identity"])
    thresholds = [(name, float(found[1])) for name in case.arrays if (found := IDS.fullmatch(name))]
    assert thresholds
    for name, threshold in thresholds:
        rules = WindowRules(frames=2 * frames, threshold=threshold, birth_score=0.0, delay=frames)
        found = watched(scores, frames, rules, every_frame)
        expected = [identity if identity else NONE for identity in case.arrays[name].reshape(-1).tolist()]
        assert same_but_for_numbers(found, expected), name
        assert [i for i, one in enumerate(found) if one == NONE] == [i for i, one in enumerate(expected) if one == NONE]
