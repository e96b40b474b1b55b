"""UnLoc against the reference, from pixels to logits, loss and gradients, on every model there is.

What a case holds decides what is compared; an array that no test here knows is a failure, not a skip.
"""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onlooker.operators.localize.unloc.convert import to_reference
from onlooker.operators.localize.unloc.fusion import Fusion, sinusoid
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.training.localize_loss import LocalizeLoss

from .goldens import Case, assert_close, require
from .gradients import assert_gradients
from .test_unloc_losses_parity import loss_of_detections, loss_of_frames, loss_of_moments
from .unloc import build, find_models, frames, mask, options, parametrize_models, texts

LOGITS, TOKENS, RELATIVE = 1e-4, 5e-5, 1e-5
KNOWN = re.compile(
    r"config_json|task|seed|param/.+|input/(rgb|input_mask|caption_mask|(caption|class_names|video_title)(/.+)?)"
    r"|mid/(video_tower_tokens_preproj|video_tokens|text_tokens|fused_video_tokens|fused_text_emb)"
    r"|mid/enc_text0_(input|mask|output)|mid/enc_text0/"
    r"(Add1DPositionEmbedding_0|posembed_input|Dropout_0|encoder_norm|(encoderblock|output_conv|output_ln|Conv)_\d+)"
    r"|out/(logits|class_logits|displacements|scores_sigmoid|loss)|label/(label|displacements|batch_mask)"
    r"|grad(norm)?/.+"
)


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_models(metafunc)


def need(case: Case | None, *arrays: str) -> Case:
    """The case, or a skip if it does not hold the arrays."""
    case = require(case, "UnLoc's models")
    if not case.has(*arrays):
        pytest.skip(f"holds no {' and '.join(arrays)}")
    return case


def test_every_array_is_compared(case: Case | None) -> None:
    case = require(case, "UnLoc's models")
    unknown = [name for name in case.arrays if not KNOWN.fullmatch(name)]
    assert not unknown, f"{case} holds {unknown}: no check knows this kind"
    assert case.has("config_json", "input/rgb", "out/logits"), f"{case} is no model"


def test_trees_go_both_ways(case: Case | None) -> None:
    case = require(case, "UnLoc's models")
    tree, wanted = to_reference(build(case)), case.below("param/")
    assert tree.keys() == wanted.keys()
    for name, array in wanted.items():
        assert tree[name].shape == array.shape and (tree[name] == array).all(), name


@torch.no_grad()
def test_towers(case: Case | None) -> None:
    case = require(case, "UnLoc's models")
    model, rgb = build(case), frames(case)
    if case.has("mid/video_tower_tokens_preproj"):
        features = rgb if model.image is None else model.encode_frames(rgb)
        assert_close(features, case.tensor("mid/video_tower_tokens_preproj"), TOKENS)
    if case.has("mid/video_tokens"):
        assert_close(model.encode_video(rgb), case.tensor("mid/video_tokens"), TOKENS)
    if case.has("mid/text_tokens"):
        given, _ = texts(case)
        tokens = model.project_texts(given) if model.text is None else model.encode_text_tokens(given)
        assert_close(tokens, case.tensor("mid/text_tokens"), TOKENS)


@torch.no_grad()
def test_fused_tokens(case: Case | None) -> None:
    case = need(case, "mid/fused_video_tokens")
    model, expected = build(case), case.tensor("mid/fused_video_tokens")
    ids, words = texts(case)
    read = model.encode_texts(ids, words)
    videos = len(frames(case))
    fused = model.fuse(*model.pair(model.encode_video(frames(case)), read, mask(case)))
    tokens = torch.cat(fused.levels, 1).unflatten(0, (videos, -1))  # B, n, N, d
    assert_close(tokens.transpose(1, 2) if model.config.task == "action_segmentation" else tokens, expected, TOKENS)
    if case.has("mid/fused_text_emb"):
        pooled = fused.text[:, 0]
        if model.config.fusion.all_text_tokens:
            each = ids if model.config.task == "highlight_detection" else ids.repeat(videos, 1)
            pooled = model.pool_text(fused.text, each)
        assert_close(pooled.unflatten(0, (videos, -1)), case.tensor("mid/fused_text_emb"), TOKENS)


def module_of(fusion: Fusion, name: str) -> nn.Module:
    """Our module for one of theirs."""
    kind, _, number = name.rpartition("_")
    levels = fusion.simple or fusion.fpn
    if name == "encoder_norm":
        assert fusion.norm is not None
        return fusion.norm
    if kind == "encoderblock":
        return fusion.blocks[int(number)]
    assert levels is not None
    if kind == "Conv":
        assert fusion.fpn is not None
        return fusion.fpn.downs[int(number)]
    return (levels.convs if kind == "output_conv" else levels.norms)[int(number)]


@torch.no_grad()
def test_every_module_of_the_fusion(case: Case | None) -> None:
    case = need(case, "mid/enc_text0_input", "mid/enc_text0_mask", "mid/enc_text0_output")
    model = build(case)
    fusion, count = model.fusion, model.config.frames
    given = case.tensor("mid/enc_text0_input")
    length = given.shape[1] - count  # of the text
    seen: dict[str, Tensor] = {}
    wanted = case.below("mid/enc_text0/")
    for name in wanted:
        if name in ("Add1DPositionEmbedding_0", "posembed_input", "Dropout_0"):
            continue
        module_of(fusion, name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, output)
        )
    fusion.blocks[0].register_forward_hook(lambda module, inputs, output: seen.__setitem__("Dropout_0", inputs[0]))
    levels = case.tensor("mid/enc_text0_mask").bool().split([n + length for n in model.config.level_lengths], 1)
    steps = torch.cat([level[:, :-length] for level in levels], 1)
    fused = fusion(given[:, :count], given[:, count:], steps, levels[0][:, -length:])
    assert_close(torch.cat([*fused.levels, fused.text], 1), case.tensor("mid/enc_text0_output"), TOKENS)
    # As they stand in `seen`, positions were already added to the sequence.
    seen["Add1DPositionEmbedding_0"] = torch.from_numpy(sinusoid(*given.shape[1:])).expand_as(given)
    if fusion.positions is not None:
        seen["posembed_input"] = fusion.positions.expand_as(given)
    for name, expected in wanted.items():
        assert_close(seen[name], torch.from_numpy(expected).expand_as(seen[name]), TOKENS)


@torch.no_grad()
def test_logits(case: Case | None) -> None:
    case = require(case, "UnLoc's models")
    model = build(case)
    ids, words = texts(case)
    logits = model(frames(case), ids, mask(case), words)
    assert_close(logits, case.tensor("out/logits"), LOGITS)
    if mask(case) is not None and bool(mask(case).all()):  # type: ignore[union-attr]
        assert_close(model(frames(case), ids, None, words), logits, LOGITS)
    scores, displacements = split(logits, model)
    for name, ours in (
        ("class_logits", scores),
        ("displacements", displacements),
        ("scores_sigmoid", scores.sigmoid()),
    ):
        if case.has(f"out/{name}"):
            assert_close(ours.reshape(case.arrays[f"out/{name}"].shape), case.tensor(f"out/{name}"), LOGITS)


def split(logits: Tensor, model: Unloc) -> tuple[Tensor, Tensor]:
    """Logits and displacements out of the reference's layouts."""
    if model.config.task == "action_segmentation":
        return logits, logits
    if model.config.task == "moment_retrieval":
        return logits[..., 0], logits[..., 1:]
    if model.config.head.per_class_displacements:
        triples = logits.unflatten(-1, (-1, 3))
        return triples[..., 0], triples[..., 1:]
    return logits[..., :-2], logits[..., -2:]


@torch.no_grad()
def test_pairs_alone_are_scored_as_together(case: Case | None) -> None:
    """`score`, which streams and training use, against the reference's logits, one pair at a time."""
    case = require(case, "UnLoc's models")
    model = build(case)
    if not model.config.head.per_class_displacements:
        pytest.skip("displacements depend on all texts of a video")
    ids, words = texts(case)
    pairs = model.pair(model.encode_video(frames(case)), model.encode_texts(ids, words), mask(case))
    logits, _ = split(case.tensor("out/logits"), model)
    if model.config.task != "moment_retrieval":
        logits = logits.transpose(1, 2)  # B, n, N
    flat = logits.flatten(0, 1)
    for row in {0, len(flat) // 2, len(flat) - 1}:
        one = [None if part is None else part[row : row + 1] for part in pairs]
        assert one[0] is not None and one[1] is not None
        assert_close(model.score(one[0], one[1], one[2], one[3]).logits, flat[row : row + 1], LOGITS)


def loss_of(model: Unloc, case: Case) -> LocalizeLoss:
    ids, words = texts(case)
    logits = model(frames(case), ids, mask(case), words)
    given = {name: case.tensor(f"label/{name}") for name in case.below("label/")}
    videos, count = logits.shape[0], sum(model.config.level_lengths)
    given.setdefault("batch_mask", torch.ones(videos))
    steps = mask(case)
    given["input_mask"] = torch.ones(videos, count) if steps is None else steps.float()
    if case.has("input/caption_mask"):
        given["caption_mask"] = case.tensor("input/caption_mask")
    loss: Any = {"moment_retrieval": loss_of_moments, "action_segmentation": loss_of_frames}.get(
        model.config.task, loss_of_detections
    )
    return loss(logits, given, options(case))  # type: ignore[no-any-return]


def test_loss(case: Case | None) -> None:
    case = need(case, "label/label", "out/loss")
    with torch.no_grad():
        total = loss_of(build(case), case).total
    assert float(total) == pytest.approx(float(case.arrays["out/loss"]), rel=RELATIVE)


def test_gradients(case: Case | None) -> None:
    """d loss / d every parameter: norms of all, and many in full."""
    case = need(case, "label/label")
    norms, full = case.below("gradnorm/"), case.below("grad/")
    if not norms and not full:
        pytest.skip("holds no gradients")
    model = build(case).train()
    loss_of(model, case).total.backward()  # type: ignore[no-untyped-call]
    assert_gradients(model, to_reference, norms, full)


@torch.no_grad()
def test_crippled_models_are_noticed() -> None:
    """Twins that read one thing wrongly miss the reference's logits by far more than the tolerance."""
    for case in find_models("out/logits"):
        ids, words = texts(case)
        expected = case.tensor("out/logits")
        for cripple in (no_positions, wrong_epsilon, padding_on_both_sides):
            model = build(case)
            if cripple(model):
                error = float((model(frames(case), ids, mask(case), words) - expected).abs().max())
                assert error > 10 * LOGITS, f"{case}: {cripple.__name__} goes unnoticed"


def no_positions(model: Unloc) -> bool:
    model.fusion.config = copy.copy(model.fusion.config)
    object.__setattr__(model.fusion.config, "positions", "none")
    model.fusion.positions = None
    return True


def wrong_epsilon(model: Unloc) -> bool:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-2
    return True


def padding_on_both_sides(model: Unloc) -> bool:
    """PyTorch's `padding=1` at stride 2; even lengths tell it from XLA's SAME."""
    if model.fusion.simple is None or model.config.fusion.stride != 2 or model.config.fusion.levels < 2:
        return False
    for conv in list(model.fusion.simple.convs)[1:]:
        conv.forward = partial(padded_on_both_sides, conv)  # type: ignore[method-assign]
    return True


def padded_on_both_sides(conv: nn.Conv1d, x: Tensor) -> Tensor:
    return F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, 2, 1, 1, conv.groups).transpose(1, 2)
