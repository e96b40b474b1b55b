"""The windows of a stream against the reference: frames come one by one, on all models that score pairs alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onlooker.operators.localize.moment_model import MomentModel, MomentSettings
from onlooker.operators.localize.windows import Pool, Ring, WindowPlan

from .goldens import Case, assert_close, require
from .unloc import build, find_models, mask, parametrize_models, texts

LOGITS = 1e-4


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_models(metafunc)


def streamable(case: Case) -> list[int]:
    """The videos of a case that are all there; none if the model needs all texts of a video, or all words, at once."""
    config, seen = build(case).config, mask(case)
    if config.fusion.all_text_tokens or not config.head.per_class_displacements:
        return []
    videos = len(case.tensor("input/rgb"))
    return [video for video in range(videos) if seen is None or bool(seen[video].all())]


def test_some_models_are_compared() -> None:
    assert any(streamable(case) for case in find_models("mid/video_tower_tokens_preproj", "out/class_logits"))


@torch.no_grad()
def test_a_stream_as_long_as_a_window_is_the_clip(case: Case | None) -> None:
    """Whatever the hop: when all frames have come, what is known is what the reference says about the clip."""
    case = require(case, "UnLoc's models")
    videos = streamable(case) if case.has("mid/video_tower_tokens_preproj", "out/class_logits") else []
    if not videos:
        pytest.skip("pairs of a video and a text cannot be scored alone")
    model = build(case)
    config = model.config
    fusion = config.fusion
    hop = fusion.stride ** (fusion.levels - 1)
    plan = WindowPlan(config.frames, fusion.levels, fusion.stride, hop, config.frames // 4, 2.0)
    scorer = MomentModel(model, None, MomentSettings(), 4)  # type: ignore[arg-type]  # the texts are read already
    vectors = [tokens[0].numpy() for tokens in model.encode_texts(*texts(case)).tokens]
    for video in videos:
        features = case.arrays["mid/video_tower_tokens_preproj"][video]
        own = [vectors[video]] if config.task == "highlight_detection" else vectors
        pools, ring = [Pool.empty(plan) for _ in own], Ring()
        for i, frame in enumerate(features):
            for window in ring.push(i / 2.0, scorer.project_frame(frame), plan):
                for pool, (logits, boxes) in zip(pools, scorer.score([(window, v) for v in own], plan), strict=True):
                    pool.add(window, logits, boxes, plan)
        for text, pool in enumerate(pools):
            compare(case, video, text, pool)


def compare(case: Case, video: int, text: int, pool: Pool) -> None:
    """The pool of a video and a text with the reference's arrays."""
    moments = str(case.arrays["task"]) == "moment_retrieval"
    where = (video, text) if moments else (video, slice(None), text)
    logits = case.tensor("out/class_logits")[where]
    assert_close(torch.from_numpy(pool.logits), logits.flatten(), LOGITS)
    if case.has("out/displacements"):
        assert_close(torch.from_numpy(pool.boxes), case.tensor("out/displacements")[where], LOGITS)
