"""PixelLLM's cases: `<root>/dense_voc/f_pixelllm_pieces*.npz` (one part a case) and `f_pixelllm_whole*.npz`."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from onlooker.operators.caption.convert_config import decoder_sizes
from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.objects.pixelllm.convert import load_reference
from onlooker.operators.objects.pixelllm.model import PixelLlm
from onlooker.operators.objects.pixelllm.reference import pixelllm_config

from .goldens import Case, find_cases, find_files, parametrize_with

FAMILY, PIECES, WHOLE = "dense_voc", "f_pixelllm_pieces", "f_pixelllm_whole"
BEGIN, END = 1, 2
"""Of the texts in these files."""
_POINTWISE, _NETWORK = 1e-5, 1e-4


def load_part(case: Case, module: nn.Module, ours: str, theirs: str) -> Any:
    """A part of a model, which we and they call so, with the case's parameters."""
    tree = {f"{theirs}/{name}": array for name, array in case.below("p:").items()}
    load_reference(nn.ModuleDict({ours: module}), tree)
    return module.eval()


def count(case: Case, pattern: str) -> int:
    """How many parameters' names match."""
    return sum(re.fullmatch(pattern, name) is not None for name in case.below("p:"))


def text_decoder(case: Case) -> GitDecoder:
    """The decoder of a case, or the one that lies beside it."""
    if not case.has("num_heads"):
        (case,) = (other for other in find_cases(FAMILY, PIECES, "num_heads", "visual") if other.file == case.file)
    tree = {f"textual/{name}": array for name, array in case.below("p:").items()}
    sizes = decoder_sizes(tree, "textual", "visual_projection.0", of="a text decoder")
    config = GitConfig(**sizes, num_heads=case.number("num_heads"), begin_token=BEGIN, end_token=END)
    decoder = load_part(case, GitDecoder(config), "decoder", "textual")
    assert isinstance(decoder, GitDecoder)
    return decoder


def visual(case: Case) -> Tensor:
    """What the decoder beside a case reads."""
    (other,) = (other for other in find_cases(FAMILY, PIECES, "num_heads", "visual") if other.file == case.file)
    return other.tensor("visual")


def parametrize_whole(metafunc: Any) -> None:
    """Give a test one whole model each; without any, None, on which it fails."""
    parametrize_with(metafunc, "case", partial(find_files, FAMILY, WHOLE))


def whole(case: Case) -> PixelLlm:
    """The case's model with the case's weights; the README tells the heads."""
    tree = case.below("p:")
    sizes: dict[str, Any] = {}
    for trunk in ("git", "sam"):
        size = case.arrays.get(f"{trunk}_size", case.arrays["images"].shape[1:3])
        sizes[f"{trunk}_preprocess_args.image_size"] = [int(side) for side in size]
    options: dict[str, Any] = {"git_backbone_args.num_heads": 4, "text_decoder_args.num_heads": 4, **sizes}
    if case.has("fuse"):
        options["text_decoder_args.out_feat_fuse_method"] = str(case.arrays["fuse"])
    config = pixelllm_config(tree, None, {**options, "begin_token_id": BEGIN, "end_token_id": END}).config
    model = PixelLlm(config)
    load_reference(model, tree)
    return model.eval()


def assert_pointwise(actual: Tensor, expected: Tensor) -> None:
    """Equal shapes, and values as after the same few operations."""
    torch.testing.assert_close(actual.float(), expected.float(), atol=_POINTWISE, rtol=_POINTWISE)


def assert_network(actual: Tensor, expected: Tensor) -> None:
    """Equal shapes, and values up to 1e-4 of the largest."""
    scale = max(float(expected.abs().max()), 1.0)
    torch.testing.assert_close(actual.float(), expected.float(), atol=_NETWORK * scale, rtol=0)
