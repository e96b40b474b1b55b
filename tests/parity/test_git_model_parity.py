"""The GIT models of Streaming DVC against the reference, from pixels to captions, on every case there is.

What a case holds decides what is compared; an array that no test here knows is a failure, not a skip.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from onlooker.operators.caption.contexts import StreamingResult
from onlooker.operators.caption.convert import load_reference, to_reference
from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import SearchConfig
from onlooker.operators.caption.dense_memory import frame_memories, memories_at_points
from onlooker.operators.caption.dense_reference import dense_config, paragraph_config
from onlooker.operators.caption.git import TextState
from onlooker.operators.caption.paragraph import ParagraphCaptioner
from onlooker.operators.tower.vit import normalize
from onlooker.training.dvc_loss import CaptionLoss, CaptionLossOptions, caption_loss

from . import goldens
from .goldens import Case, assert_close, find_cases, parametrize, require
from .gradients import assert_gradients

STEM = "model_git"
DECODED = re.compile(r"decode_(?P<method>greedy|beam(?P<beam>\d+))/(?P<array>.+)")
KNOWN = re.compile(
    r"params/.+|config|images|preprocessed_frame0|vit_out_first2frames|vit_intermediate/.+|visual_features"
    r"|memory_per_frame|memory_eval_points|gt_text_tokens|context_tokens|checkpoint_inds|teacher_forced_logits"
    r"|loss/(cap_loss|loc_loss|num_cap_tokens|num_loc_tokens|total_loss)|grad_l2/.+|grad/.+"
    r"|decode_text_(tokens|context|logits_last_memory_with_context|logits_first_memory_no_context)"
    r"|decode_(greedy|beam\d+)/(text_tokens(_\d+)?|context_(\d+|tokens))|memory|bos_logits|decoded"
)
Model = DenseCaptioner | ParagraphCaptioner


def pytest_generate_tests(metafunc: Any) -> None:
    if "case" in metafunc.fixturenames:
        parametrize(metafunc, "streaming_dvc", STEM)


def options(case: Case) -> dict[str, Any]:
    return dict(json.loads(str(case.arrays["config"])))


def build(case: Case, **changes: Any) -> Model:
    """The case's model with the case's weights; `changes` to its configuration."""
    values = options(case) | changes
    model: Model = (
        DenseCaptioner(dense_config(values))
        if "num_dense_outputs" in values
        else ParagraphCaptioner(paragraph_config(values))
    )
    load_reference(model, case.below("params/"))
    return model.eval()


def need(case: Case | None, *arrays: str) -> Case:
    """The case, or a skip if it does not hold the arrays."""
    case = require(case, "the GIT models")
    if not case.has("config", *arrays):
        pytest.skip(f"holds no {' and '.join(arrays)}")
    return case


def dense(case: Case) -> DenseCaptioner:
    model = build(case)
    assert isinstance(model, DenseCaptioner), f"{case}: these arrays belong to a dense model"
    return model


_TOKENS: dict[tuple[Path, str], torch.Tensor] = {}


def tokens_of(case: Case) -> torch.Tensor:
    """Tokens (B, T, N, D) of a case's images by our own trunk, computed once."""
    key = (case.file, case.name)
    if key not in _TOKENS:
        with torch.no_grad():
            _TOKENS[key] = build(case).encoder(case.tensor("images"))
    return _TOKENS[key]


def test_every_array_is_compared(case: Case | None) -> None:
    case = require(case, "the GIT models")
    unknown = [name for name in case.arrays if not KNOWN.fullmatch(name)]
    assert not unknown, f"{case} holds {unknown}: no check knows this kind"
    assert case.has("config", "images"), f"{case} is no model: it lacks its config or images"


def test_trunk(case: Case | None) -> None:
    case = need(case, "images")
    model = build(case)
    vision, config = model.encoder.vision, model.config.encoder
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, given, result: seen.__setitem__(name, result)

    for name in case.below("vit_intermediate/"):
        path = name.replace("patch_embed.proj", "patch").replace("/", ".")
        vision.get_submodule(path).register_forward_hook(keep(name))
    pixels = normalize(case.tensor("images")[0, :2], config.pixel_mean, config.pixel_std)
    with torch.no_grad():
        out = vision(pixels)
    if case.has("preprocessed_frame0"):
        assert_close(pixels[0], case.tensor("preprocessed_frame0"))
    if case.has("vit_out_first2frames"):
        assert_close(out, case.tensor("vit_out_first2frames"))
    for name, expected in case.below("vit_intermediate/").items():
        actual = seen[name].permute(0, 2, 3, 1) if name == "patch_embed.proj" else seen[name]
        assert_close(actual, torch.from_numpy(expected))
    if case.has("visual_features"):
        assert_close(tokens_of(case).flatten(1, 2), case.tensor("visual_features"))


def test_memories(case: Case | None) -> None:
    case = need(case, "images", "memory_eval_points")
    config = dense(case).config
    tokens = tokens_of(case)
    if case.has("memory_per_frame"):
        memories = torch.stack(frame_memories(tokens, config.memory), 1)
        expected = case.tensor("memory_per_frame")
        # A video with fewer tokens than the memory holds: the reference repeats what there is, more often than frames.
        assert_close(memories[:, : expected.shape[1]], expected[:, : memories.shape[1]])
    points = memories_at_points(tokens, config.memory, config.test_points)
    for point, memory in enumerate(points):
        assert_close(memory, case.tensor("memory_eval_points")[:, point])


def teacher_forced(model: Model, case: Case) -> torch.Tensor:
    context = case.tensor("context_tokens") if case.has("context_tokens") else None
    given = (case.tensor("images"), case.tensor("gt_text_tokens"), context)
    if isinstance(model, DenseCaptioner):
        given = (*given, case.tensor("checkpoint_inds") if case.has("checkpoint_inds") else None)
    return model(*given)  # type: ignore[no-any-return]


def loss_of(logits: torch.Tensor, model: Model, case: Case) -> CaptionLoss:
    values = options(case)
    weight = values.get("loc_loss_weight", -1.0)
    loss_options = CaptionLossOptions(
        label_smoothing=values.get("label_smooth", 0.1),
        time_weight=weight if weight >= 0 else None,
        ignore_empty=values.get("ignore_empty_data", False),
        point_weights=tuple(values.get("dense_outputs_weight", ())),
    )
    rows = case.tensor("gt_text_tokens").flatten(0, 1)
    return caption_loss(logits, rows, values.get("num_bins", 100), model.config.decoder.end_token, loss_options)


def test_teacher_forcing_and_loss(case: Case | None) -> None:
    case = need(case, "gt_text_tokens", "teacher_forced_logits")
    model = build(case).train()
    with torch.no_grad():
        logits = teacher_forced(model, case)
    assert_close(logits, case.tensor("teacher_forced_logits"))
    loss = loss_of(logits, model, case)
    ours = {
        "total_loss": loss.total,
        "cap_loss": loss.caption,
        "loc_loss": loss.time,
        "num_cap_tokens": loss.caption_tokens,
        "num_loc_tokens": loss.time_tokens,
    }
    for name, expected in case.below("loss/").items():
        assert_close(ours[name], torch.tensor(expected))


def test_gradients_through_the_memory(case: Case | None) -> None:
    """d loss / d every parameter: norms of all, and a few in full."""
    case = need(case, "gt_text_tokens")
    norms, full = case.below("grad_l2/"), case.below("grad/")
    if not norms and not full:
        pytest.skip("holds no gradients")
    model = build(case).train()
    loss_of(teacher_forced(model, case), model, case).total.backward()  # type: ignore[no-untyped-call]
    assert_gradients(model, to_reference, norms, full)


def both_ways(model: Model, tokens: torch.Tensor, memory: torch.Tensor, prefix: torch.Tensor | None) -> torch.Tensor:
    """Logits of the whole text; asserts that one token at a time gives the same."""
    decoder = model.decoder
    with torch.no_grad():
        whole = decoder(tokens, memory, None, prefix)
        state = TextState(decoder, decoder.encode_context(memory, None, prefix), tokens.shape[1])
        steps = [state.step(tokens[:, position], position) for position in range(tokens.shape[1])]
    assert_close(torch.stack(steps, 1), whole)
    return whole  # type: ignore[no-any-return]


def test_logits_of_the_decode_path(case: Case | None) -> None:
    case = need(case, "decode_text_tokens")
    model = dense(case)
    tokens, memory, config = case.tensor("decode_text_tokens"), tokens_of(case), model.config
    points = memories_at_points(memory, config.memory, config.test_points)
    name = "decode_text_logits_last_memory_with_context"
    if case.has(name):
        assert_close(both_ways(model, tokens, points[-1], case.tensor("decode_text_context")), case.tensor(name))
    name = "decode_text_logits_first_memory_no_context"
    if case.has(name):
        assert_close(both_ways(model, tokens, points[0], None), case.tensor(name))


def decode_runs(case: Case) -> dict[str, SearchConfig]:
    """The case's decodes by their prefix, with the search each of them asks for."""
    alpha = options(case).get("decode_brevity_penalty_alpha", 0.6)
    runs = {}
    for name in case.arrays:
        if match := DECODED.fullmatch(name):
            beam = int(match["beam"] or 1)
            run = name.removesuffix(match["array"])
            runs[run] = SearchConfig("greedy" if match["method"] == "greedy" else "beam", beam, alpha)
    return runs


def test_streaming_decode_from_pixels(case: Case | None) -> None:
    case = need(case, "images")
    runs = decode_runs(case)
    if not runs:
        pytest.skip("holds no streaming decode")
    model = dense(case)
    for run, search in runs.items():
        compare_decode(model.decode_tokens(tokens_of(case), search), case.below(run), run)


def compare_decode(result: StreamingResult, expected: dict[str, Any], run: str) -> None:
    for name, array in expected.items():
        kind, _, number = name.rpartition("_")
        if name == "text_tokens":
            actual = result.tokens
        elif name == "context_tokens":
            actual = result.points[-1].fed
        elif kind == "text_tokens":
            actual = result.points[int(number)].tokens
        else:
            actual = result.points[int(number)].context
        assert actual is not None, f"{run}{name}: our points have no context"
        assert actual.tolist() == array.tolist(), f"{run}{name}"


def test_paragraph(case: Case | None) -> None:
    case = need(case, "images", "memory")
    model = build(case)
    assert isinstance(model, ParagraphCaptioner), f"{case}: these arrays belong to a paragraph model"
    with torch.no_grad():
        memory = model.memory(case.tensor("images"))
    assert_close(memory, case.tensor("memory"))
    if case.has("bos_logits"):
        begin = torch.full((len(memory), 1), model.config.decoder.begin_token)
        assert_close(both_ways(model, begin, memory, None)[:, 0], case.tensor("bos_logits"))
    if case.has("decoded"):
        assert model.decode(case.tensor("images")).tolist() == case.tensor("decoded").tolist()


@pytest.mark.parametrize(
    "twin",
    [
        {"streaming_method": "temporal_mean_pool"},
        {"kmeans_num_iters": 1},
        {"early_segments_as_context": False},
        {"normalize_early_timestamps": False},
        {"num_dense_outputs_test": 1},
    ],
    ids=lambda twin: next(iter(twin)),
)
def test_a_crippled_model_decodes_something_else(twin: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the comparisons above catch: the cases beside the tests notice each of these changes."""
    monkeypatch.setattr(goldens, "ROOT", Path(__file__).parents[1] / "goldens")
    noticed = False
    for case in find_cases("streaming_dvc", STEM):
        if not decode_runs(case):
            continue
        model = build(case, **twin)
        assert isinstance(model, DenseCaptioner)
        for run, search in decode_runs(case).items():
            result = model.decode_tokens(tokens_of(case), search)
            noticed |= result.tokens.tolist() != case.tensor(f"{run}text_tokens").tolist()
    assert noticed
