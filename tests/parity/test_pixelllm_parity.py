"""PixelLLM against outputs of the reference, part by part and whole."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from onlooker.operators.caption.git import TextState
from onlooker.operators.caption.search import beam_search, greedy_search
from onlooker.operators.objects.pixelllm import points
from onlooker.operators.objects.pixelllm.adapter import MaskAdapter, PromptAdapter
from onlooker.operators.objects.pixelllm.config import AdapterConfig, PointConfig
from onlooker.operators.objects.pixelllm.convert import reference_shapes, to_reference
from onlooker.operators.objects.pixelllm.model import picture_sizes
from onlooker.operators.objects.pixelllm.points import PointHead
from onlooker.operators.objects.pixelllm.prompts import PromptEncoder
from onlooker.operators.objects.pixelllm.reference import PixelLlmConfigError, pixelllm_config
from onlooker.training.objects.pixelllm_loss import mask_loss, point_loss, text_loss

from .dense_voc_pixelllm import (
    BEGIN,
    END,
    FAMILY,
    PIECES,
    assert_network,
    assert_pointwise,
    count,
    load_part,
    parametrize_whole,
    text_decoder,
    visual,
    whole,
)
from .goldens import Case, find_cases, parametrize, require

# What a piece must hold for a test of ours to take it.
_NEEDS = {
    "test_point_head": ("text_feat", "coords_relative"),
    "test_prompt_encoder": ("points", "labels", "point_embed"),
    "test_prompt_adapter": ("image_embeddings", "sparse_out"),
    "test_mask_adapter": ("sparse_in", "text", "out"),
    "test_text_decoder": ("visual", "logits", "num_heads"),
    "test_greedy_decoding": ("greedy_tokens", "greedy_logprob"),
    "test_beam_search": ("beam_eos_bias_added",),
    "test_losses": ("point_pred", "text_logits", "mask_pred"),
    "test_grids_and_boxes": ("boxes", "points_to_boxes"),
    "test_token_masks": ("mask_tokens", "decode_boxes"),
}


def pytest_generate_tests(metafunc: Any) -> None:
    """One test for each part of each file."""
    name = metafunc.function.__name__
    if name in _NEEDS:
        parametrize(metafunc, FAMILY, PIECES, *_NEEDS[name])
    elif name.startswith("test_whole"):
        parametrize_whole(metafunc)


@torch.no_grad()
def test_point_head(case: Case | None) -> None:
    case = require(case, "the point head")
    config = PointConfig(
        num_points=case.number("cfg_num_output_points"),
        num_classes=case.number("cfg_num_classes"),
        hidden_size=case.number("cfg_hidden_dim"),
        depth=case.number("cfg_depth"),
        pre_norm=case.number("cfg_pre_norm"),
        activation="gelu" if case.number("cfg_pre_norm") else "relu",  # the released head, or the class's defaults
    )
    head = load_part(case, PointHead(config, case.arrays["text_feat"].shape[-1]), "point_head", "point_predictor")
    found, logits = head(case.tensor("text_feat"))
    assert_pointwise(found, case.tensor("coords_relative"))
    assert_pointwise(logits, case.tensor("logits"))
    pixels = points.to_pixels(case.tensor("coords_relative"), case.tensor("image_hw").float())
    assert_pointwise(pixels, case.tensor("coords_absolute"))


@torch.no_grad()
def test_prompt_encoder(case: Case | None) -> None:
    case = require(case, "the prompt encoder")
    height, width = (int(side) for side in case.arrays["image_hw"])
    encoder = PromptEncoder(case.arrays["p:no_mask_embed.weight"].shape[1])
    load_part(case, encoder, "prompt_encoder", "prompt_encoder")
    given = (case.tensor("points"), case.tensor("labels"), (height, width))
    assert_pointwise(encoder.embed_points(*given), case.tensor("point_embed_padded"))
    assert_pointwise(encoder.embed_points(*given, pad=False), case.tensor("point_embed"))
    assert_pointwise(encoder.embed_boxes(case.tensor("boxes"), (height, width)), case.tensor("box_embed"))
    grids = {name: re.fullmatch(r"dense_pe_(\d+)x(\d+)", name) for name in case.arrays}
    assert any(grids.values())
    for name, grid in grids.items():
        if grid:
            assert_pointwise(encoder.grid_code((int(grid[1]), int(grid[2]))), case.tensor(name))


@torch.no_grad()
def test_prompt_adapter(case: Case | None) -> None:
    case = require(case, "the prompt adapter")
    outputs, width = case.arrays["p:output_tokens.weight"].shape
    config = AdapterConfig(
        depth=count(case, r"transformer/layers\.\d+/norm1/bias"),
        width=width,
        mlp_size=case.arrays["p:transformer/layers.0/mlp/lin1/bias"].size,
        num_outputs=outputs,
        output_width=case.arrays["sparse_out"].shape[-1],
    )
    adapter = PromptAdapter(config, case.arrays["image_embeddings"].shape[-1], case.arrays["sparse"].shape[-1])
    load_part(case, adapter, "adapter", "prompt_adapter")
    image, places = case.tensor("image_embeddings")[None], case.tensor("image_pe")
    tokens, dense = adapter(image, places, case.tensor("sparse")[None], case.tensor("dense"))
    assert_network(tokens[0], case.tensor("sparse_out"))
    assert_network(dense[0], case.tensor("dense_out"))
    # Twice the picture: prompts of one must not read the other.
    twice = torch.cat([torch.randn(image.shape), image]), torch.stack([case.tensor("sparse")] * 2)
    tokens, _ = adapter(twice[0], places, twice[1], case.tensor("dense"))
    assert_network(tokens[1], case.tensor("sparse_out"))


@torch.no_grad()
def test_mask_adapter(case: Case | None) -> None:
    case = require(case, "the mask adapter")
    outputs, width = case.arrays["p:output_tokens.weight"].shape
    adapter = MaskAdapter(
        count(case, r"transformer/layers\.\d+/norm1/bias"),
        width,
        case.arrays["visual"].shape[-1],
        case.arrays["text"].shape[-1],
        outputs,
        gated=case.has("p:alpha_output.weight"),
    )
    load_part(case, adapter, "mask_adapter", "mask_adapter")
    found = adapter(case.tensor("sparse_in"), case.tensor("visual"), case.tensor("text"))
    assert_network(found, case.tensor("out"))


@torch.no_grad()
def test_text_decoder(case: Case | None) -> None:
    case = require(case, "the text decoder")
    decoder = text_decoder(case)
    fuse, _, depths = str(case.arrays["fuse"]).partition(":") if case.has("fuse") else ("", "", "")
    for suffix, prefix in (("", None), ("_ctx", case.tensor("context") if case.has("context") else None)):
        if not case.has(f"logits{suffix}"):
            continue
        states = decoder.decode_states(
            case.tensor("tokens"), decoder.encode_context(case.tensor("visual"), None, prefix)
        )
        assert_network(decoder.output(states[-1]), case.tensor(f"logits{suffix}"))
        chosen = [states[int(depth)] for depth in depths.split(",")] if fuse else states[-1:]
        fused = torch.stack(chosen).sum(0) if fuse == "sum" else torch.cat(chosen, -1)
        assert_network(fused, case.tensor(f"feat{suffix}"))


def _begin(case: Case, name: str) -> torch.Tensor:
    rows, length = case.arrays[name].shape[0], case.arrays[name].shape[-1]
    begin = torch.full((rows, length), END)
    begin[:, 0] = BEGIN
    return begin


@torch.no_grad()
def test_greedy_decoding(case: Case | None) -> None:
    case = require(case, "greedy decoding")
    decoder, begin = text_decoder(case), _begin(case, "greedy_tokens")
    state = TextState(decoder, decoder.encode_context(visual(case)), begin.shape[1])
    tokens, scores = greedy_search(state, begin, END)
    assert torch.equal(tokens, case.tensor("greedy_tokens"))
    assert_network(scores, case.tensor("greedy_logprob"))


@torch.no_grad()
def test_beam_search(case: Case | None) -> None:
    case = require(case, "beam search")
    decoder = text_decoder(case)
    decoder.output.bias[END] += case.number("beam_eos_bias_added")
    searches = [match for name in case.arrays if (match := re.fullmatch(r"beam(\d+)x(\d+)_seqs", name))]
    assert searches
    for match in searches:
        beam, per_beam, begin = int(match[1]), int(match[2]), _begin(case, match[0])
        context = decoder.encode_context(visual(case)).repeat(beam)
        found = beam_search(TextState(decoder, context, begin.shape[1]), begin, END, beam, per_beam=per_beam)
        assert torch.equal(found.sequences, case.tensor(match[0]))
        torch.testing.assert_close(found.scores, case.tensor(match[0].replace("seqs", "scores")), atol=1e-4, rtol=1e-6)


@torch.no_grad()
def test_losses(case: Case | None) -> None:
    case = require(case, "the losses")
    found, targets = case.tensor("point_pred"), case.tensor("point_gt")
    valid = case.tensor("pred_valid"), case.tensor("gt_valid")
    for kind in ("l1", "l2", "l1_nonzero"):
        assert_pointwise(point_loss(found, targets, *valid, kind=kind), case.tensor(f"point_{kind}"))
    text = text_loss(case.tensor("text_logits"), case.tensor("text_tokens"), END, case.tensor("text_mask"))
    assert_pointwise(text, case.tensor("text"))
    loss = mask_loss(
        case.tensor("mask_pred"),
        case.tensor("mask_iou_pred"),
        case.tensor("mask_gt")[..., 0],
        case.tensor("mask_valid"),
        case.tensor("mask_padding"),
    )
    assert_pointwise(loss.focal, case.tensor("mask_focal_loss"))
    assert_pointwise(loss.dice, case.tensor("mask_dice_loss"))
    assert_pointwise(loss.quality, case.tensor("mask_iou_pred_loss"))
    assert_pointwise(loss.total, case.tensor("mask_loss"))


def test_grids_and_boxes(case: Case | None) -> None:
    case = require(case, "grids and boxes")
    tested = 0
    for name in case.arrays:
        match = re.fullmatch(r"(solid_grid|donut_grid|boxes_to_points)_(-?\d+)_([01])", name)
        if not match:
            continue
        side, offset = int(match[2]), match[3] == "1"
        border = points.border_grid(side, offset)
        if match[1] == "boxes_to_points":
            assert_pointwise(points.boxes_to_points(case.tensor("boxes"), border), case.tensor(name))
        else:
            grid = border if match[1] == "donut_grid" else points.solid_grid(side, offset)
            assert_pointwise(grid, case.tensor(name))
        tested += 1
    assert tested
    given, valid = case.tensor("points"), case.tensor("points_valid")
    assert_pointwise(points.points_to_boxes(given), case.tensor("points_to_boxes"))
    assert_pointwise(points.points_to_boxes(given, valid), case.tensor("points_to_boxes_valid"))
    for name in case.arrays:
        if match := re.fullmatch(r"points_to_boxes_valid_side(\d+)", name):
            assert_pointwise(points.points_to_boxes(given, valid, int(match[1])), case.tensor(name))


def test_token_masks(case: Case | None) -> None:
    case = require(case, "masks of tokens")
    tokens = case.tensor("mask_tokens")
    kinds = [match for name in case.arrays if (match := re.fullmatch(r"token_valid\[(.*)\]", name))]
    assert kinds
    for match in kinds:
        assert torch.equal(points.token_mask(tokens, match[1], 101, 102), case.tensor(match[0])), match[1]
    valid = points.token_mask(tokens, "^end-1", 101, 102)
    assert_pointwise(points.word_boxes(case.tensor("decode_boxes_points"), valid), case.tensor("decode_boxes"))


@torch.no_grad()
def test_whole_model(case: Case | None) -> None:
    case = require(case, "the whole model")
    model = whole(case)
    images, padding = case.tensor("images"), case.tensor("padding_mask")
    assert torch.equal(picture_sizes(images, padding), case.tensor("image_hw"))
    features = model.encode_images(images, padding)
    own = case.arrays["git_visual_features"].shape[-1]
    if features.grid.shape[1:3] == case.arrays["git_visual_features"].shape[1:3]:
        assert_network(features.grid[..., :own], case.tensor("git_visual_features"))
    assert features.masks is not None
    assert_network(features.masks, case.tensor("sam_visual_features"))
    assert_network(features.grid, case.tensor("concat_features"))
    seen = model.see(features, case.tensor("prompt_boxes"))
    assert_network(seen, case.tensor("fwd/visual_features"))
    grid = points.solid_grid(model.config.points_per_side)
    assert_pointwise(points.boxes_to_points(case.tensor("prompt_boxes"), grid), case.tensor("fwd/prompt_point_coords"))
    tokens, context = case.tensor("text_tokens"), case.tensor("context_tokens")
    unwritten = torch.full_like(tokens, END)  # as decoding begins
    unwritten[..., 0] = BEGIN
    words = model.read(unwritten, seen, context).words
    assert_network(model.word_points(words, features), case.tensor("fwd/point_coords"))
    assert_network(model.relative_points(words, features)[1], case.tensor("fwd/point_logits"))
    boxes, words = model.refer(features, seen, tokens, context)
    assert_network(words, case.tensor("text_feats"))
    assert_network(model.word_points(words, features), case.tensor("word_points"))
    assert torch.equal(model.located(points.pad_after_end(tokens, END)), case.tensor("word_point_valid"))
    assert_network(boxes, case.tensor("refer_boxes"))


@torch.no_grad()
def test_whole_captions(case: Case | None) -> None:
    case = require(case, "captions of the whole model")
    model = whole(case)
    seen, expected = case.tensor("fwd/visual_features"), case.tensor("greedy_tokens")
    found = model.caption(seen, expected.shape[-1], case.tensor("context_tokens"))
    assert torch.equal(found.tokens.flatten(0, 1), expected)
    assert_network(found.scores.flatten(), case.tensor("greedy_logprob"))


def test_whole_tree_there_and_back(case: Case | None) -> None:
    case = require(case, "the whole tree")
    tree, model = case.below("p:"), whole(case)
    assert reference_shapes(model) == {name: array.shape for name, array in tree.items()}
    back = to_reference(model)
    assert all((back[name] == array).all() for name, array in tree.items())
    with pytest.raises(PixelLlmConfigError, match="begin_token 101"):  # as released, but this one knows 40 words
        pixelllm_config(tree)
    with pytest.raises(PixelLlmConfigError, match="did you mean 'end_token_id'"):
        pixelllm_config(tree, None, {"end_tokn_id": 2})


def test_a_changed_detail_is_noticed() -> None:
    """The comparison can fail: one of the reference's peculiarities taken away."""
    case = require(next(iter(find_cases(FAMILY, PIECES, "points", "point_embed")), None), "a changed detail")
    encoder = PromptEncoder(case.arrays["p:no_mask_embed.weight"].shape[1])
    load_part(case, encoder, "prompt_encoder", "prompt_encoder")
    height, width = (int(side) for side in case.arrays["image_hw"])
    with pytest.raises(AssertionError):
        assert_pointwise(encoder.embed_boxes(case.tensor("boxes") - 0.5, (height, width)), case.tensor("box_embed"))
