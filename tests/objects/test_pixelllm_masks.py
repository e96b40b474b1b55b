"""The parts of Segment Anything against those of transformers, on random weights."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from onlooker.operators.objects.pixelllm.config import MaskConfig, SamConfig
from onlooker.operators.objects.pixelllm.masks import MaskDecoder
from onlooker.operators.objects.pixelllm.prompts import PromptEncoder
from onlooker.operators.objects.pixelllm.sam import SamEncoder

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow  # importing their models takes most of it

_WIDTH = 32
_DECODER = (
    (r"\blayer_norm(\d)\b", r"norm\1"),
    (r"^transformer\.layer_norm_final_attn", "transformer.norm_final_attn"),
    (r"^upscale_conv1", "upscaling.first"),
    (r"^upscale_conv2", "upscaling.second"),
    (r"^upscale_layer_norm", "upscaling.norm"),
    (r"^output_hypernetworks_mlps", "mask_heads"),
    (r"^iou_prediction_head", "iou_head"),
    # Their first layer is `proj_in`, their last one `proj_out`; ours are numbered.
    (r"(mask_heads\.\d+|iou_head)\.layers\.0\b", r"\1.layers.1"),
    (r"\.proj_in\b", ".layers.0"),
    (r"\.proj_out\b", ".layers.2"),
    (r"^(iou_token|mask_tokens)\.weight$", r"\1"),
)
_VISION = (
    (r"^patch_embed\.projection", "patch"),
    (r"^layers\.", "blocks."),
    (r"\blayer_norm(\d)\b", r"norm\1"),
    (r"\.mlp\.lin([12])", r".mlp.fc\1"),
)


def _renamed(state: dict[str, Tensor], renames: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    return found


@torch.no_grad()
def test_mask_decoder_is_sams() -> None:
    torch.manual_seed(0)
    config = transformers.SamMaskDecoderConfig(
        hidden_size=_WIDTH, mlp_dim=48, num_attention_heads=4, iou_head_hidden_dim=_WIDTH, iou_head_depth=3
    )
    theirs = transformers.models.sam.modeling_sam.SamMaskDecoder(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = MaskDecoder(MaskConfig(mlp_size=48, num_heads=4, head_size=_WIDTH), _WIDTH).eval()
    ours.load_state_dict(_renamed(theirs.state_dict(), _DECODER))
    image, places = torch.randn(2, 5, 4, _WIDTH), torch.randn(5, 4, _WIDTH)
    prompts, no_mask = torch.randn(2, 3, 2, _WIDTH), torch.randn(1, _WIDTH)
    for several in (False, True):
        expected = theirs(
            image_embeddings=image.movedim(-1, 1),
            image_positional_embeddings=places.movedim(-1, 0)[None].expand(2, -1, -1, -1),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=no_mask.view(1, -1, 1, 1).expand(2, -1, 5, 4),
            multimask_output=several,
        )
        masks, quality = ours(image, places, prompts, no_mask, several)
        torch.testing.assert_close(masks, expected[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(quality, expected[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_image_encoder_is_sams() -> None:
    torch.manual_seed(0)
    config = transformers.SamVisionConfig(
        hidden_size=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=80,
        patch_size=16,
        window_size=3,
        global_attn_indexes=[1],
        output_channels=16,
        mlp_dim=64,
    )
    theirs = transformers.models.sam.modeling_sam.SamVisionEncoder(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = SamEncoder(
        SamConfig(
            position_size=80,
            width=_WIDTH,
            num_layers=2,
            num_heads=2,
            mlp_ratio=2.0,
            window_size=3,
            window_blocks=(0,),
            channels=16,
        )
    ).eval()
    ours.load_state_dict(_renamed(theirs.state_dict(), _VISION))
    images = torch.randn(2, 80, 80, 3)
    expected = theirs(images.movedim(-1, 1)).last_hidden_state.movedim(1, -1)
    torch.testing.assert_close(ours(images), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_prompts_are_sams() -> None:
    torch.manual_seed(0)
    config = transformers.SamConfig(
        prompt_encoder_config={"hidden_size": _WIDTH, "image_size": 80, "patch_size": 16},
        vision_config={"num_pos_feats": _WIDTH // 2},
    )
    theirs = transformers.models.sam.modeling_sam.SamPromptEncoder(config).eval()
    ours = PromptEncoder(_WIDTH)
    state = theirs.state_dict()
    ours.pe_layer.positional_encoding_gaussian_matrix.copy_(theirs.shared_embedding.positional_embedding)
    for index, parameter in enumerate(ours.point_embeddings):
        parameter.copy_(state[f"point_embed.{index}.weight"])
    ours.not_a_point_embed.copy_(state["not_a_point_embed.weight"])
    points, labels = torch.rand(2, 3, 4, 2) * 80, torch.randint(-1, 2, (2, 3, 4))
    expected, _ = theirs(points, labels, None, None)
    torch.testing.assert_close(ours.embed_points(points, labels, (80, 80)), expected, atol=1e-5, rtol=1e-5)
    boxes = torch.rand(2, 3, 4) * 80
    expected, _ = theirs(None, None, boxes, None)
    torch.testing.assert_close(ours.embed_boxes(boxes, (80, 80)), expected, atol=1e-5, rtol=1e-5)
