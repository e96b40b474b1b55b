"""Vid2Seq against the reference, from frame features to captions, on every case there is.

What a case holds decides what is compared; an array or option that no check here knows is a failure, not a skip.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from onlooker.operators.caption.contexts import StreamingResult
from onlooker.operators.caption.dense_config import SearchConfig
from onlooker.operators.caption.vid2seq.config import Vid2SeqConfig
from onlooker.operators.caption.vid2seq.convert import state_from_reference
from onlooker.operators.caption.vid2seq.decoding import decode_videos
from onlooker.operators.caption.vid2seq.load import build
from onlooker.operators.caption.vid2seq.model import Vid2Seq
from onlooker.operators.caption.vid2seq.reference import vid2seq_config
from onlooker.operators.memory.alternatives import checkpoint_frames
from onlooker.training.dvc_loss import CaptionLossOptions, caption_loss

from . import goldens
from .goldens import Case, assert_close, find_cases, parametrize, require

STEM = "model_vid2seq"
DECODED = re.compile(r"decode_(?P<method>greedy|beam(?P<beam>\d+))/(?P<array>.+)")
KNOWN = re.compile(
    r"params/.+|config|image_features|gt_text_tokens|context_tokens|checkpoint_inds"
    r"|encoded_visual_(train|eval)|encoded_context|teacher_forced_logits|(loss/)?total_loss"
    r"|decode_(greedy|beam\d+)/(text_tokens(_\d+)?|context_(\d+|tokens))"
)
LOSS = {"label_smooth": "label_smoothing", "ignore_empty_data": "ignore_empty"}


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        parametrize(metafunc, "streaming_dvc", STEM)


def need(case: Case | None, *arrays: str) -> Case:
    """The case, or a skip if it does not hold the arrays."""
    case = require(case, "Vid2Seq")
    if not case.has(*arrays):
        pytest.skip(f"holds no {' and '.join(arrays)}")
    return case


def options(case: Case) -> dict[str, Any]:
    return dict(json.loads(str(case.arrays["config"])))


def config_of(case: Case, **changes: Any) -> Vid2SeqConfig:
    """Sizes are read off the parameters; an option that is unknown, or does not fit them, is an error."""
    config = vid2seq_config(case.below("params/"), options(case), changes)
    # The reference's runs have dropout switched off, also in training.
    return dataclasses.replace(config, dropout=0.0)


def build_model(case: Case, **changes: Any) -> Vid2Seq:
    """The case's model with the case's weights; `changes` to its configuration."""
    config = config_of(case, **changes)
    return build(config, state_from_reference(case.below("params/"), config)).eval()


def assert_text_close(config: Vid2SeqConfig, actual: torch.Tensor, expected: torch.Tensor) -> None:
    """What the text model computes: within 5e-5, or within 2 units in the last place of bfloat16.

    A unit is that of the largest number of a row (values near zero are sums of larger ones), and the error is the
    root mean square over the array: of single elements the reference compiled as a whole and the reference run
    operation by operation differ by up to 14 units themselves, and by 0.5 to 1.3 in this sense.
    """
    if config.dtype == "float32":
        assert_close(actual, expected)
        return
    assert actual.shape == expected.shape
    error = (actual.float() - expected) / bfloat16_unit(expected.abs().amax(-1, keepdim=True))
    assert float(error.square().mean().sqrt()) <= 2.0


def bfloat16_unit(value: torch.Tensor) -> torch.Tensor:
    """Distance of neighbouring bfloat16 numbers (8 significant bits) at this size."""
    return torch.exp2(torch.floor(torch.log2(value)) - 7)


def test_every_array_is_compared(case: Case | None) -> None:
    case = require(case, "Vid2Seq")
    unknown = [name for name in case.arrays if not KNOWN.fullmatch(name)]
    assert not unknown, f"{case} holds {unknown}: no check knows this kind"
    assert case.has("config", "image_features", "teacher_forced_logits"), f"{case} is no Vid2Seq model"
    config_of(case)


def frames_of(case: Case) -> torch.Tensor | None:
    return case.tensor("checkpoint_inds") if case.has("checkpoint_inds") else None


@torch.no_grad()
def test_visual_encoder(case: Case | None) -> None:
    case = need(case, "image_features")
    model = build_model(case)
    features = case.tensor("image_features")
    if case.has("encoded_visual_train"):
        assert_close(model.encode_visual(features, frames_of(case)), case.tensor("encoded_visual_train"))
    if case.has("encoded_visual_eval"):
        expected = case.tensor("encoded_visual_eval")
        seen = checkpoint_frames(model.config.num_frames, model.config.test_points)
        frames = torch.tensor(seen) - 1 if expected.ndim == 4 else None
        assert_close(model.encode_visual(features, frames), expected)


@torch.no_grad()
def test_prefix_encoder(case: Case | None) -> None:
    case = need(case, "context_tokens", "encoded_context")
    model = build_model(case)
    tokens, expected = case.tensor("context_tokens"), case.tensor("encoded_context")
    states = model.encode_prefix(tokens.flatten(0, -2))
    assert_text_close(model.config, states.view(expected.shape), expected)


def teacher_forced(model: Vid2Seq, case: Case) -> torch.Tensor:
    prefix = case.tensor("context_tokens") if case.has("context_tokens") else None
    with torch.no_grad():
        logits: torch.Tensor = model(
            case.tensor("image_features"), case.tensor("gt_text_tokens"), prefix, frames_of(case)
        )
    return logits


def test_teacher_forcing_and_loss(case: Case | None) -> None:
    case = need(case, "gt_text_tokens", "teacher_forced_logits")
    model = build_model(case).train()
    config = model.config
    logits = teacher_forced(model, case)
    assert_text_close(config, logits, case.tensor("teacher_forced_logits"))
    values = options(case)
    loss = caption_loss(
        logits,
        case.tensor("gt_text_tokens").flatten(0, 1),
        config.num_bins,
        config.end_token,
        CaptionLossOptions(
            time_weight=None, **{ours: values[theirs] for theirs, ours in LOSS.items() if theirs in values}
        ),
    ).total
    for name in ("total_loss", "loss/total_loss"):
        if case.has(name):
            expected = torch.as_tensor(case.arrays[name])
            unit = float(bfloat16_unit(expected)) if expected else 0.0
            assert_close(loss, expected, atol=5e-5 if config.dtype == "float32" else 2 * unit)


def decode_runs(case: Case) -> dict[str, SearchConfig]:
    """The case's decodes by their prefix, with the search each of them asks for."""
    alpha = options(case).get("decode_brevity_penalty_alpha", 0.6)
    runs = {}
    for name in case.arrays:
        if match := DECODED.fullmatch(name):
            method = "greedy" if match["method"] == "greedy" else "beam"
            runs[name.removesuffix(match["array"])] = SearchConfig(method, int(match["beam"] or 1), alpha)
    return runs


def test_streaming_decode(case: Case | None) -> None:
    """All that every point saw and wrote; bfloat16 texts hang on ties and are only decoded."""
    case = need(case, "image_features")
    runs = decode_runs(case)
    if not runs:
        pytest.skip("holds no streaming decode")
    model = build_model(case)
    for run, search in runs.items():
        result = decode_videos(model, case.tensor("image_features"), search)
        for name, expected in case.below(run).items():
            actual = decoded(result, name)
            if actual is None:
                assert not model.config.context.early_segments_as_context, f"{run}{name}"
            elif model.config.dtype == "float32":
                assert actual.tolist() == expected.tolist(), f"{run}{name}"
            else:
                assert actual.shape == expected.shape, f"{run}{name}"


def decoded(result: StreamingResult, name: str) -> torch.Tensor | None:
    """The array of our result that the reference calls `name`."""
    kind, _, number = name.rpartition("_")
    if name == "text_tokens":
        return result.tokens
    if name == "context_tokens":
        return result.points[-1].fed
    point = result.points[int(number)]
    return point.tokens if kind == "text_tokens" else point.context


@pytest.fixture
def public_cases(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """The cases beside the tests: crippled models must be noticed whatever other cases are tested."""
    monkeypatch.setattr(goldens, "ROOT", Path(__file__).parents[1] / "goldens")
    return find_cases("streaming_dvc", STEM)


@pytest.mark.parametrize(
    "twin", [{"early_segments_as_context": False}, {"num_dense_outputs_test": 1}], ids=lambda twin: next(iter(twin))
)
def test_a_crippled_model_decodes_something_else(twin: dict[str, Any], public_cases: list[Case]) -> None:
    noticed = False
    for case in public_cases:
        model = build_model(case, **twin)
        for run, search in decode_runs(case).items():
            result = decode_videos(model, case.tensor("image_features"), search)
            noticed |= result.tokens.tolist() != case.tensor(f"{run}text_tokens").tolist()
    assert noticed


@pytest.mark.parametrize(
    "weights",
    [
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "visual.positions",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_without_positions_is_noticed(weights: str, dtype: str, public_cases: list[Case]) -> None:
    """The tolerance of either type tells a model without one of its three kinds of positions."""
    noticed = False
    for case in public_cases:
        config = Vid2SeqConfig.from_dict(config_of(case).to_dict() | {"dtype": dtype})
        state = state_from_reference(case.below("params/"), config)
        whole = build(config, state).eval()
        crippled = build(config, state | {weights: torch.zeros_like(state[weights])}).eval()
        prefix = case.tensor("context_tokens").flatten(0, -2)
        try:
            assert_text_close(config, teacher_forced(crippled, case), teacher_forced(whole, case).float())
            with torch.no_grad():
                assert_text_close(config, crippled.encode_prefix(prefix), whole.encode_prefix(prefix).float())
        except AssertionError:
            noticed = True
    assert noticed
