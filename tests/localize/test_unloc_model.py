"""UnLoc beyond what goldens show: options, masks, pairs, towers' limits. Numbers are compared in tests/parity."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from onlooker.operators.localize.unloc.blocks import TimeConv
from onlooker.operators.localize.unloc.config import FusionConfig, HeadConfig, UnlocConfig, level_lengths
from onlooker.operators.localize.unloc.heads import LocalizationHead
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.pyramid import Fpn, nearest
from onlooker.operators.localize.unloc.resize import ResizeError, resize_class_embedding, resize_positions

from .unloc_parts import FPN, LINEAR, SMALL, TOWERS, random_model, with_fusion

ALL_TEXT = with_fusion(TOWERS, all_text_tokens=True, text_length=7)
CONFIGS = {
    "pyramid": SMALL,
    "fpn": FPN,
    "linear": LINEAR,
    "stride 3": replace(with_fusion(FPN, stride=3, downsample="avg_pool"), frames=18),
    "conv": with_fusion(FPN, downsample="conv"),
    "depthwise": with_fusion(FPN, downsample="depthwise_conv"),
    "subsample": with_fusion(FPN, downsample="subsample"),
    "learned": with_fusion(positions="learned"),
    "none": with_fusion(positions="none"),
    "one head per level": replace(SMALL, head=HeadConfig(convs=1, shared=False)),
    "sigmoid": replace(SMALL, head=HeadConfig(normalizer="sigmoid")),
    "clip": replace(SMALL, head=HeadConfig(normalizer="relu_clip")),
    "biases": replace(SMALL, projection_bias=True),
}


def pairs(config: UnlocConfig, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, config.frames, config.fusion.width), torch.randn(count, config.fusion.width)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_has_a_model(name: str) -> None:
    config = CONFIGS[name]
    model = random_model(config)
    video, text = pairs(config)
    with torch.inference_mode():
        scored = model.score(video, text)
        assert scored.logits.shape == (4, config.steps) == (4, sum(config.level_lengths))
        assert scored.logits.isfinite().all()
        other = model.score(video, text.flip(0)).logits
    assert (other - scored.logits).abs().max() > 1e-3, "a pair's score depends on its text"
    if scored.displacements is None:
        assert config.head.kind == "linear"
    else:
        assert scored.displacements.shape == (4, config.steps, 2) and (scored.displacements >= 0).all()
        if config.head.normalizer != "relu":
            assert (scored.displacements <= 1).all()
    assert UnlocConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", CONFIGS)
def test_a_pair_does_not_see_its_neighbours(name: str) -> None:
    """Not a bit of it, at a fixed number of pairs."""
    model, (video, text) = random_model(CONFIGS[name]), pairs(CONFIGS[name])
    with torch.inference_mode():
        before = model.score(video, text)
        video[1:], text[1:] = 7.0, -3.0
        after = model.score(video, text)
    for one, two in zip(before, after, strict=True):
        assert one is None or two is None or torch.equal(one[0], two[0])
    assert not torch.equal(before.logits[1], after.logits[1])


@pytest.mark.parametrize("config", [SMALL, FPN, LINEAR], ids=["pyramid", "fpn", "linear"])
def test_masked_steps_are_not_looked_at(config: UnlocConfig) -> None:
    """What lies under the mask changes no step that is far from it; without the mask it does."""
    model, (video, text) = random_model(config), pairs(config, 1)
    mask = model.step_mask(torch.tensor([4]))
    assert mask[0, : config.frames].tolist() == [True] * 4 + [False] * (config.frames - 4)
    changed = video.clone()
    changed[:, 12:] += 5.0
    with torch.inference_mode():
        first = [model.score(v, text, m).logits[0, 0] for v, m in ((video, mask), (changed, mask), (changed, None))]
    assert abs(first[0] - first[1]) < 1e-6 if config is not FPN else True
    assert abs(first[0] - first[2]) > 1e-4


def test_an_empty_mask_is_no_mask() -> None:
    model, (video, text) = random_model(SMALL), pairs(SMALL)
    with torch.inference_mode():
        full = model.score(video, text, torch.ones(4, SMALL.steps, dtype=torch.bool))
        torch.testing.assert_close(full, model.score(video, text))


def test_the_mask_has_a_place_for_every_step() -> None:
    model, (video, text) = random_model(SMALL), pairs(SMALL)
    with pytest.raises(ValueError, match=r"\(4, 16\) instead of \(4, 28\)"):
        model.score(video, text, torch.ones(4, 16, dtype=torch.bool))


def test_a_step_exists_if_its_frame_does() -> None:
    mask = random_model(SMALL).step_mask(torch.tensor([16, 9, 0]))
    assert mask.sum(1).tolist() == [28, 9 + 5 + 3, 0]


def test_padding_is_that_of_xla() -> None:
    """SAME at stride 2 and even length pads on the right only; a shift of one frame is what a wrong side costs."""
    conv = TimeConv(1, stride=2, depthwise=True)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
        conv.bias.zero_()  # type: ignore[union-attr]
        even, odd = (conv(torch.arange(1.0, n + 1)[None, :, None])[0, :, 0].tolist() for n in (6, 5))
    assert even == [321.0, 543.0, 65.0]
    assert odd == [210.0, 432.0, 54.0]


@pytest.mark.parametrize(("length", "wanted"), [(2, 5), (3, 6), (2, 7), (5, 11)])
def test_nearest_is_that_of_half_pixel_centres(length: int, wanted: int) -> None:
    x = torch.randn(2, length, 3)
    found = F.interpolate(x.transpose(1, 2), wanted, mode="nearest-exact").transpose(1, 2)
    assert torch.equal(nearest(x, wanted), found)


def test_what_an_fpn_pools_has_no_step_too_many() -> None:
    """Lengths that are no multiple of the stride: what is left over is dropped, as masks and heads expect."""
    config = replace(FPN, frames=18)
    scored = random_model(config).score(*pairs(config))
    assert scored.logits.shape == (4, 18 + 9 + 4)
    x = torch.randn(1, 7, 16)
    for kind, wanted in (("max_pool", x[:, :6].reshape(1, 3, 2, 16).amax(2)), ("subsample", x[:, 0:6:2])):
        assert torch.equal(Fpn(replace(FPN.fusion, downsample=kind)).shrink(x, 0), wanted)  # type: ignore[arg-type]


def test_shared_displacements_are_those_of_the_mean_text() -> None:
    shared = replace(SMALL, task="temporal_localization", head=HeadConfig(convs=1, per_class_displacements=False))
    model = random_model(shared)
    with torch.inference_mode():
        logits = model(torch.randn(2, 16, 12), torch.randn(5, 10))
    assert logits.shape == (2, 28, 5 + 2)
    with pytest.raises(ValueError, match="cannot be scored alone"):
        model.score(*pairs(shared))
    head = LocalizationHead(4, 1, shared.head)
    tokens = torch.randn(2, 3, 8, 4)
    assert torch.equal(head([tokens]).displacements, head([tokens.mean(1)]).displacements)


@pytest.mark.parametrize(
    ("task", "shape"),
    [("moment_retrieval", (2, 3, 28, 3)), ("temporal_localization", (2, 28, 9)), ("action_segmentation", (2, 16, 3))],
)
def test_layouts_hold_what_pairs_score(task: str, shape: tuple[int, ...]) -> None:
    config = replace(LINEAR if task == "action_segmentation" else SMALL, task=task)  # type: ignore[arg-type]
    model, video, texts = random_model(config), torch.randn(2, 16, 12), torch.randn(3, 10)
    with torch.inference_mode():
        found = model(video, texts)
        logits, boxes = model.score(model.project_video(video[1:]), model.project_texts(texts[2:]))
    assert found.shape == shape
    one = {"moment_retrieval": lambda: found[1, 2], "temporal_localization": lambda: found[1, :, 6:]}.get(
        task, lambda: found[1, :, 2:]
    )()
    torch.testing.assert_close(one[:, 0], logits[0])
    if boxes is not None:
        torch.testing.assert_close(one[:, 1:], boxes[0])


def test_highlights_have_a_text_of_their_own() -> None:
    model = random_model(replace(SMALL, task="highlight_detection"))
    assert model(torch.randn(2, 16, 12), torch.randn(2, 10)).shape == (2, 28, 3)
    with pytest.raises(ValueError, match="3 texts for 2 videos"):
        model(torch.randn(2, 16, 12), torch.randn(3, 10))


def test_towers_take_frames_of_any_shape_with_as_many_patches() -> None:
    model = random_model(TOWERS)
    for height, width in ((8, 12), (12, 8), (4, 24)):
        assert model.encode_frames(torch.randn(2, 16, height, width, 3)).shape == (2, 16, 12)
    for shape, said in (((2, 16, 8, 8, 3), "6 patches"), ((2, 16, 8, 11, 3), "8x11"), ((2, 15, 8, 12, 3), "15 frames")):
        with pytest.raises(ValueError, match=said):
            model.encode_frames(torch.randn(*shape))
    with pytest.raises(ValueError, match="5 tokens"):
        model.encode_text_tokens(torch.ones(1, 5, dtype=torch.long))


def test_patches_run_row_by_row() -> None:
    """A frame whose pixels are numbered: a patch holds its rows one after another, channels last."""
    tower = random_model(TOWERS).image
    assert tower is not None
    rgb = torch.arange(8 * 12 * 3.0).view(1, 1, 8, 12, 3)
    patches = tower._patches(rgb)
    assert patches.shape == (1, 1, 6, 48)
    assert torch.equal(patches[0, 0, 4], rgb[0, 0, 4:8, 4:8].flatten())


def test_texts_that_lost_their_end_look_the_same() -> None:
    """As in the reference: the begin, of the largest id that is left, sees no word."""
    model = random_model(TOWERS)
    cut = torch.tensor([[38, 3, 4, 5, 6, 7, 8], [38, 9, 10, 11, 12, 13, 14]])
    ended = torch.tensor([[38, 3, 4, 5, 39, 0, 0], [38, 9, 10, 39, 0, 0, 0]])
    with torch.inference_mode():
        same = model.encode_texts(cut).tokens
        different = model.encode_texts(ended).tokens
    torch.testing.assert_close(same[0], same[1])
    assert (different[0] - different[1]).abs().max() > 1e-3


def test_fill_of_a_text_is_not_read_even_if_all_its_tokens_are() -> None:
    model = random_model(ALL_TEXT)
    ids = torch.tensor([[38, 3, 4, 39, 0, 0, 0]])
    texts, video = model.encode_texts(ids), torch.randn(1, 16, 16)
    assert texts.tokens.shape == (1, 7, 16) and texts.mask is not None
    other = texts.tokens.clone()
    other[:, 4:] += 3.0
    with torch.inference_mode():
        one = model.score(video, texts.tokens, text_mask=texts.mask)
        torch.testing.assert_close(one, model.score(video, other, text_mask=texts.mask))
        assert (one.logits - model.score(video, other).logits).abs().max() > 1e-4


def test_frozen_towers_get_no_gradient_and_their_projections_do() -> None:
    model = random_model(replace(TOWERS, freeze_image=True, freeze_text=True)).train()
    model(torch.randn(1, 16, 8, 12, 3), torch.tensor([[38, 3, 39, 0, 0, 0, 0]])).sum().backward()
    touched = {name.split(".")[0] for name, weights in model.named_parameters() if weights.grad is not None}
    assert touched == {"video_projection", "text_projection", "fusion", "head"}


def test_models_without_towers_say_so() -> None:
    model = Unloc(SMALL)
    with pytest.raises(ValueError, match="no image tower"):
        model.encode_frames(torch.zeros(1, 16, 8, 8, 3))
    with pytest.raises(ValueError, match="no text tower"):
        model.encode_text_tokens(torch.zeros(1, 7, dtype=torch.long))


def test_weights_begin_as_the_reference_draws_them() -> None:
    torch.manual_seed(0)
    model = Unloc(replace(SMALL, fusion=FusionConfig(64, 4, 256, 3, levels=3), head=HeadConfig(class_bias=-5.0)))
    assert isinstance(model.head, LocalizationHead)
    assert model.head.classify[0].output.bias.tolist() == [-5.0]
    assert model.head.regress[0].output.bias.tolist() == [2.0, 2.0]
    # xavier uniform of a square kernel: +-sqrt(6 / 128), a deviation of 1/8, for each of query, key and value.
    for part in model.fusion.blocks[0].attn.qkv.weight.detach().chunk(3):
        assert float(part.abs().max()) <= (6 / 128) ** 0.5 and float(part.std()) == pytest.approx(0.125, rel=0.05)
    conv = model.head.classify[0].convs[0]
    assert float(conv.weight.detach().std()) == pytest.approx((3 * 64) ** -0.5, rel=0.05)  # lecun normal
    assert float(model.fusion.blocks[0].mlp_in.bias.detach().abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: replace(SMALL, frames=18), "multiple of 4"),
        (lambda: replace(SMALL, task="captioning"), "'captioning' is none of"),
        (lambda: with_fusion(heads=3), "width 16 is not a multiple of heads 3"),
        (lambda: with_fusion(kind="transformer"), "one level, not 3"),
        (lambda: with_fusion(FPN, pyramid_blocks=(0, 1)), "one per level"),
        (lambda: with_fusion(FPN, pyramid_blocks=(0, 2, 1)), "increasing"),
        (lambda: with_fusion(FPN, layers=4), "must be the last of the 4 blocks"),
        (lambda: with_fusion(pyramid_blocks=(0, 1, 2)), "belong to an fpn"),
        (lambda: with_fusion(text_length=3), "needs all_text_tokens"),
        (lambda: with_fusion(TOWERS, all_text_tokens=True, text_length=5), "must be the text tower's 7"),
        (lambda: replace(SMALL, project_video=False), "need project_video"),
        (lambda: replace(SMALL, project_text=False), "need project_text"),
        (lambda: replace(TOWERS, video_width=13), "width of its tower, 12"),
        (lambda: replace(SMALL, head=HeadConfig(kind="linear")), "reads one level"),
        (lambda: HeadConfig(convs=-1), "at least 0"),
    ],
)
def test_what_cannot_be_is_refused(change: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        change()  # type: ignore[operator]


def test_lengths_of_levels() -> None:
    assert level_lengths(128, 4, 2) == (128, 64, 32, 16)
    assert level_lengths(18, 3, 2) == (18, 9, 4)
    assert SMALL.steps == 28


def test_positions_become_others_of_a_square_only() -> None:
    assert resize_positions(torch.randn(1 + 4, 3), 9).shape == (10, 3)
    ramp = torch.arange(3.0)[:, None]
    assert resize_class_embedding(ramp, 5)[:, 0].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    with pytest.raises(ResizeError, match="both must be squares"):
        resize_positions(torch.randn(1 + 4, 3), 6)
    with pytest.raises(ResizeError, match="class token"):
        resize_positions(torch.randn(4, 3), 9, from_token=False)


def test_half_precision_masks_as_well() -> None:
    """bfloat16 has other limits than float32: its mask must neither be infinite nor of another type."""
    for config, text in ((SMALL, torch.randn(2, 10)), (TOWERS, torch.tensor([[38, 3, 4, 39, 0, 0, 0]] * 2))):
        model = random_model(replace(config, image=None, video_width=12))
        video, mask = torch.randn(2, 16, 12), model.step_mask(torch.tensor([16, 5]))
        with torch.inference_mode():
            wanted = model(video, text, mask)
            words = text.bfloat16() if text.is_floating_point() else text
            found = model.bfloat16()(video.bfloat16(), words, mask)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), wanted, atol=0.2, rtol=0.1)
