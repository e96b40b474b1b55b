"""CLIP's image side as the start of a detector: the same tokens, up to what CLIP has not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from onlooker.operators.objects.densevoc.clip_init import ClipWeightsError, load_clip
from onlooker.operators.objects.densevoc.config import BackboneConfig
from onlooker.operators.objects.densevoc.vit import DetectionVit

SIZE = BackboneConfig(
    image_size=64, patch_size=16, width=24, num_layers=2, num_heads=3, window_blocks=(), pretrain_size=64
)


class _Block(nn.Module):
    """As open_clip has it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        out: Tensor = x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return out


class _Clip(nn.Module):
    """The image side of open_clip; patches alone run through it here, without the class token."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width, side = config.width, config.pretrain_size // config.patch_size
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        blocks = nn.Sequential(*(_Block(width, config.num_heads) for _ in range(config.num_layers)))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.proj = nn.Parameter(torch.randn(width, 16))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        tokens: Tensor = self.transformer["resblocks"](self.ln_pre(patches + self.positional_embedding[1:]))
        return tokens


def clip() -> tuple[_Clip, dict[str, Tensor]]:
    """And its weights beside those of a text side."""
    torch.manual_seed(0)
    image_side = _Clip(SIZE).eval()
    weights = {f"visual.{name}": value for name, value in image_side.state_dict().items()}
    return image_side, weights | {"transformer.resblocks.0.ln_1.weight": torch.ones(5), "logit_scale": torch.ones(())}


@torch.inference_mode()
@pytest.mark.parametrize("alone", [False, True])
def test_the_same_tokens(alone: bool) -> None:
    image_side, weights = clip()
    vit = DetectionVit(SIZE).eval()
    for parameter in vit.parameters():
        parameter.copy_(torch.randn_like(parameter))  # also what CLIP has not
    load_clip(vit, image_side.state_dict() if alone else weights)
    images = torch.randn(2, 3, 64, 64)
    expected = image_side(images)
    torch.testing.assert_close(vit(images).flatten(2).transpose(1, 2), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.pop("visual.ln_pre.bias"), "lack ln_pre.bias"),
        (lambda weights: weights.update({"visual.more": torch.ones(1)}), "unknown more"),
        (
            lambda weights: weights.update({"visual.ln_pre.bias": torch.ones(3)}),
            r"ln_pre.bias \(3,\) instead of \(24,\)",
        ),
    ],
)
def test_other_weights_are_refused(change: object, told: str) -> None:
    _, weights = clip()
    change(weights)  # type: ignore[operator]
    vit = DetectionVit(SIZE)
    before = [parameter.clone() for parameter in vit.parameters()]
    with pytest.raises(ClipWeightsError, match=told):
        load_clip(vit, weights)
    assert all(torch.equal(one, other) for one, other in zip(before, vit.parameters(), strict=True))


def test_a_deeper_vit_is_refused() -> None:
    _, weights = clip()
    with pytest.raises(ClipWeightsError, match=r"lack blocks\.2"):
        load_clip(DetectionVit(replace(SIZE, num_layers=3)), weights)
