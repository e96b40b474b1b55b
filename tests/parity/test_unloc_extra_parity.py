"""What surrounds UnLoc's models, against the reference: texts, tables, learning rates, and all of it in a row."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from onlooker.operators.localize.unloc.decoding import (
    decode_detections,
    decode_moments,
    probabilities,
    suppress_detections,
    suppress_moments,
)
from onlooker.operators.localize.unloc.fusion import sinusoid
from onlooker.operators.localize.unloc.nms import NmsOptions
from onlooker.operators.localize.unloc.resize import resize_class_embedding, resize_positions, resize_text_positions
from onlooker.operators.localize.unloc.sampling import Sampling, anchors
from onlooker.training.localize_schedules import UNLOC_SCHEDULES
from onlooker.training.schedules import LearningRate

from .goldens import ROOT, Case, assert_close, find_cases
from .test_unloc_postprocess_parity import assert_moments
from .unloc import FAMILY, build, find_models, frames, mask, texts

EXACT = 1e-6
KNOWN = re.compile(r"text|sinusoid|(class_emb|pos_emb|text_pos)_resize|lr|pipeline")


def extras(kind: str) -> list[Case]:
    """The cases of a kind."""
    return [case for case in find_cases(FAMILY, "extra") if case.name == kind]


def test_every_kind_is_compared() -> None:
    cases = find_cases(FAMILY, "extra")
    assert cases, f"no golden case under {ROOT}: nothing was compared"
    assert not [case.name for case in cases if not KNOWN.fullmatch(case.name)], "no check knows these kinds"


@torch.no_grad()
@pytest.mark.parametrize("case", extras("text"), ids=str)
def test_texts(case: Case) -> None:
    """Also texts that were cut, whose pooled token is the same, and texts without a word."""
    models = [model for model in find_models() if model.file.stem == "model_mr"]
    assert models, "the text tower's weights are those of model_mr"
    tower = build(models[0]).text
    assert tower is not None
    ids = case.tensor("in/input_word_ids")
    tokens = tower(ids)
    assert_close(tokens, case.tensor("out/tokens"))
    model = build(models[0])
    for pool in ("eos", "gap"):
        if case.has(f"out/pooled_{pool}"):
            assert model.text is not None
            object.__setattr__(model.config, "text", replace(model.text.config, pool=pool))
            expected = case.tensor(f"out/pooled_{pool}")
            assert_close(torch.nan_to_num(model.pool_text(tokens, ids)), torch.nan_to_num(expected))


@pytest.mark.parametrize("case", extras("sinusoid"), ids=str)
def test_sinusoid(case: Case) -> None:
    for name, expected in case.arrays.items():
        length, width = map(int, name.split("_"))
        np.testing.assert_allclose(sinusoid(length, width), expected, atol=EXACT, rtol=0)


@pytest.mark.parametrize("case", extras("class_emb_resize"), ids=str)
def test_class_tokens_for_other_frames(case: Case) -> None:
    for size, table in case.below("in/").items():
        resized = resize_class_embedding(torch.from_numpy(table), int(size.split("_")[1]))
        assert_close(resized, case.tensor(f"out/{size}"), EXACT)


@pytest.mark.parametrize("case", extras("text_pos_resize"), ids=str)
def test_positions_for_other_texts(case: Case) -> None:
    for length in {name.split("/")[0] for name in case.arrays}:
        own, table = case.tensor(f"{length}/to"), case.tensor(f"{length}/from")
        assert_close(resize_text_positions(table, own), case.tensor(f"{length}/out"), EXACT)


@pytest.mark.parametrize("case", extras("pos_emb_resize"), ids=str)
def test_positions_for_other_frames(case: Case) -> None:
    """`out_<pool>/<from>_<to>` of `in/<from>_<to>`; `out_<pool>_same/<from>` keeps the size of any table from there."""
    compared = 0
    for name, expected in case.arrays.items():
        match = re.fullmatch(r"out_(token|gap)(_same)?/(.+)", name)
        if match:
            token, size = match[1] == "token", match[3]
            table = next(a for key, a in case.below("in/").items() if key == size or key.startswith(f"{size}_"))
            resized = resize_positions(torch.from_numpy(table), len(expected) - int(token), to_token=token)
            assert_close(resized, torch.from_numpy(expected), EXACT)
            compared += 1
    assert compared


def rates(case: Case, name: str, rate: LearningRate) -> bool:
    """Within the float32 in which the reference computes."""
    expected = case.arrays[f"{name}/lr"]
    found = np.array([rate(int(step)) for step in case.arrays[f"{name}/step"]])
    return bool(np.allclose(found, expected, rtol=2e-6, atol=1e-6 * rate.base))


@pytest.mark.parametrize("case", extras("lr"), ids=str)
def test_learning_rates(case: Case) -> None:
    for name in {key.split("/")[0] for key in case.arrays}:
        assert name in UNLOC_SCHEDULES, f"no schedule {name!r}; there are {', '.join(UNLOC_SCHEDULES)}"
        schedule = UNLOC_SCHEDULES[name]
        if case.has(f"{name}/total_steps"):
            assert schedule.steps == case.number(f"{name}/total_steps")
        assert rates(case, name, schedule.rate), name
        assert not rates(case, name, replace(schedule.rate, warmup_steps=0)), f"{name}: no warm-up goes unnoticed"


@pytest.mark.parametrize("case", extras("pipeline"), ids=str)
def test_pixels_to_segments(case: Case) -> None:
    """The first video of a model, through heads, decoding and suppression."""
    for name in {key.split("/")[0] for key in case.arrays}:
        compare_pipeline(Case(case.file, f"pipeline/{name}", case.below(f"{name}/")), name)


def compare_pipeline(case: Case, name: str) -> None:
    found = [model for model in find_models() if model.file.stem == f"model_{name}"]
    assert found, f"there is no model_{name} for {case.name}"
    source, given = found[0], json.loads(str(case.arrays["args_json"]))
    model, video = build(source), given.get("video_index", 0)
    config = model.config
    ids, words = texts(source)
    with torch.no_grad():
        pairs = model.pair(model.encode_video(frames(source)), model.encode_texts(ids, words), mask(source))
        levels = [x.reshape(len(frames(source)), -1, *x.shape[1:]) for x in model.fuse(*pairs).levels]
        scored = model.head(levels)
    assert scored.displacements is not None
    scores, displacements = probabilities(scored.logits[video].numpy()), scored.displacements[video].numpy()
    steps = anchors(config.frames, config.fusion.levels, config.fusion.stride)
    sampling = Sampling(
        given["sampling_strategy"],
        config.frames,
        given["total_frames"],
        given["stride"],
        normalizer=given["displacement_normalizer"],
    )
    kept = mask(source)
    seen = None if kept is None else kept[video].numpy()
    seconds, options = given["secs_per_timestep"], NmsOptions(score_threshold=given["score_threshold"])
    if config.task == "moment_retrieval":
        own = len(scores) // len(frames(source))
        moments = decode_moments(
            scores[video * own :][:own], displacements[video * own :][:own], seen, steps, sampling,
            seconds_per_frame=seconds,
        )  # fmt: skip
        for i, moment in enumerate(suppress_moments(moments, options)):
            if case.has(f"score_{i}"):
                assert_moments(*moment, case.arrays[f"score_{i}"], case.arrays[f"segments_sec_{i}"])
        return
    shared = displacements if displacements.ndim == 2 else displacements.swapaxes(0, 1)  # N, 2 or N, C, 2
    detections = suppress_detections(
        decode_detections(
            scores.T, shared, seen, steps, sampling,
            seconds_per_frame=seconds, score_threshold=given["score_threshold"],
        ),
        options,
    )  # fmt: skip
    np.testing.assert_array_equal(detections.classes, case.arrays["class"])
    assert_moments(detections.scores, detections.segments, case.arrays["score"], case.arrays["segments_sec"])
