"""UnLoc's towers from the weights of a CLIP model of open_clip, with which its training begins.

The models to start from are those with quick GELU, as OpenAI trained them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from onlooker.operators.errors import OnlookerError

from .model import Unloc
from .resize import resize_positions, resize_text_positions

# Of a block, up to "weight" and "bias".
_BLOCK = {
    "ln_1.": "norm1.",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.out.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "mlp_in.",
    "mlp.c_proj.": "mlp_out.",
}


class ClipWeightsError(OnlookerError):
    """Weights that are not those of a CLIP model of this size."""


def load_clip(model: Unloc, state: Mapping[str, Tensor], *, projections: bool = True) -> None:
    """Put a CLIP model's weights into the towers of a model; its fusion and head stay as they are.

    Args:
        model: with an image tower, a text tower, or both.
        state: `state_dict()` of an open_clip model whose image side is a vision transformer.
        projections: also take CLIP's projections into its common space, where the widths agree.

    Raises:
        ClipWeightsError: a weight is missing or has another shape; nothing was loaded.
    """
    wanted: dict[str, Tensor] = {}
    try:
        if model.image is not None:
            wanted |= _image(model, state)
        if model.text is not None:
            wanted |= _text(model, state)
        if projections:
            wanted |= _projections(model, state)
    except KeyError as error:
        raise ClipWeightsError(f"the CLIP model lacks {error}: give one with a vision transformer") from error
    own = dict(model.named_parameters())
    for name, weights in wanted.items():
        if weights.shape != own[name].shape:
            raise ClipWeightsError(
                f"the CLIP model's weights for {name} are {tuple(weights.shape)} instead of {tuple(own[name].shape)}: "
                "it has another size"
            )
    with torch.no_grad():
        for name, weights in wanted.items():
            own[name].copy_(weights)


def _image(model: Unloc, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    assert model.image is not None
    config, token = model.image.config, model.image.class_embedding
    wanted = {
        # Theirs is (width, 3, side, side); a patch of ours runs over rows, columns, channels.
        "image.patch.weight": state["visual.conv1.weight"].permute(0, 2, 3, 1).flatten(1),
        "image.positions": resize_positions(
            state["visual.positional_embedding"], config.patches, to_token=token is not None
        ),
        **_norm("image.ln_pre", state, "visual.ln_pre"),
        **_norm("image.ln_post", state, "visual.ln_post"),
        **_blocks("image.blocks", state, "visual.transformer.resblocks", config.layers),
    }
    if token is not None:
        wanted["image.class_embedding"] = state["visual.class_embedding"].expand(len(token), -1)
    return wanted


def _text(model: Unloc, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    assert model.text is not None
    return {
        "text.words.weight": state["token_embedding.weight"],
        "text.positions": resize_text_positions(
            state["positional_embedding"], model.text.positions.detach().to(state["positional_embedding"])
        ),
        **_norm("text.norm", state, "ln_final"),
        **_blocks("text.blocks", state, "transformer.resblocks", model.text.config.layers),
    }


def _projections(model: Unloc, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's projections, which it stores as (in, out)."""
    found = {}
    for name, part, theirs in (
        ("video_projection", model.video_projection if model.image else None, "visual.proj"),
        ("text_projection", model.text_projection if model.text else None, "text_projection"),
    ):
        if part is not None:
            weights = state[theirs].T
            if weights.shape == part.weight.shape:
                found[f"{name}.weight"] = weights
    return found


def _blocks(ours: str, state: Mapping[str, Tensor], theirs: str, layers: int) -> dict[str, Tensor]:
    return {
        f"{ours}.{i}.{own}{leaf}": state[f"{theirs}.{i}.{their}{leaf}"]
        for i in range(layers)
        for their, own in _BLOCK.items()
        for leaf in ("weight", "bias")
    }


def _norm(ours: str, state: Mapping[str, Tensor], theirs: str) -> dict[str, Tensor]:
    return {f"{ours}.{leaf}": state[f"{theirs}.{leaf}"] for leaf in ("weight", "bias")}
