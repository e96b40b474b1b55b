"""Windows drawn from features of photographs: their truth, their looks, and what is asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from onlooker.training.localize_scenes import Bank, SceneRecipe, SceneWindows, Window

from .localize_bank import small_bank

PLAIN = SceneRecipe(blur=(0.0, 0.0), jitter=0.0, wander=0.0, fade=0.0, short=0.0)
"""Nothing but the photographs themselves."""


def draw(recipe: SceneRecipe, count: int = 40, bank: Bank | None = None) -> list[Window]:
    windows, rng = SceneWindows(bank or small_bank(), recipe), np.random.default_rng(1)
    return [windows(rng) for _ in range(count)]


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def test_moments_are_where_the_photograph_is() -> None:
    """Inside its moments a caption is near the picture, outside it is not; without the moments the two are the same."""
    inside, outside, anywhere = [], [], []
    for window in draw(PLAIN):
        near = unit(window.features) @ unit(window.texts).T  # T, Q
        for query, spans in enumerate(window.moments[:3]):
            frames = np.arange(window.length)
            if not spans:
                continue
            there = np.logical_or.reduce([(frames >= a) & (frames < b) for a, b in spans])
            if there.all():
                continue
            inside.append(near[there, query].min())
            outside.append(np.median(near[~there, query]))
            anywhere.append(np.median(near[np.random.default_rng(0).permutation(there), query]))
    assert np.mean(inside) > 0.75
    assert np.mean(outside) < 0.4
    assert np.mean(anywhere) < np.mean(inside) - 0.2, "moments at random frames would not have passed"


def test_moments_are_cut_at_the_window() -> None:
    for window in draw(dataclasses.replace(PLAIN, short=0.5)):
        assert not window.features[window.length :].any()
        for spans in window.moments:
            for start, end in spans:
                assert 0 <= start < end <= window.length
                assert np.ceil(start) < end, "a moment without a sample cannot be found"
            assert all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False)), "scenes that touch are one moment"


def test_there_are_queries_with_none_one_and_several_moments() -> None:
    counts = [len(spans) for window in draw(SceneRecipe(), 100) for spans in window.moments]
    assert {0, 1, 2} <= set(counts)
    assert 0.2 < np.mean(np.array(counts) > 0) < 0.7


def test_every_window_is_asked_as_many_texts() -> None:
    assert {len(window.texts) for window in draw(SceneRecipe(classes=6, class_share=1.0))} == {8}


def test_scenes_drift_slowly_and_change_at_borders() -> None:
    """Neighbouring samples are nearly equal, those on two sides of a border are not."""
    recipe = SceneRecipe(blur=(0.0, 0.0), short=0.0, fade=0.0, again=0.0, alike=0.0)
    steps = np.concatenate([1 - (unit(w.features)[1:] * unit(w.features)[:-1]).sum(1) for w in draw(recipe)])
    share = recipe.seconds / np.mean(recipe.scene)  # of the steps that cross a border
    assert np.quantile(steps, 1 - 2 * share) < 0.05
    assert np.quantile(steps, 1 - share / 2) > 0.3


def test_blur_takes_captions_away_from_their_photographs() -> None:
    """As it is with photographs that the tower was not trained with."""

    def likeness(blur: float) -> float:
        windows = draw(dataclasses.replace(PLAIN, blur=(blur, blur)), 60)
        return float(
            np.mean(
                [
                    (unit(w.features[int(np.ceil(a)) : int(np.ceil(b))]) @ unit(w.texts[q])).mean()
                    for w in windows
                    for q in range(2)
                    for a, b in w.moments[q][:1]
                ]
            )
        )

    assert likeness(0.0) > likeness(0.5) + 0.05 > likeness(0.9) + 0.1


def test_windows_repeat_with_their_seed() -> None:
    first, second = (draw(SceneRecipe(), 3) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.moments == b.moments
        np.testing.assert_array_equal(a.features, b.features)
    assert not np.array_equal(first[0].features, first[1].features)


@pytest.mark.parametrize("wrong", [{"scene": (0.0, 3.0)}, {"fade": 5.0}, {"blur": (0.5, 0.2)}])
def test_recipes_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="scenes|blur"):
        dataclasses.replace(SceneRecipe(), **wrong)
