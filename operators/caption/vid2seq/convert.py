"""Weights of the reference's Vid2Seq (a flax tree) under our names.

Trees are flat, as `operators.convert.read` reads them from files. Kernels are (in, out); those of the
visual encoder's attention keep heads as an axis of their own, those of the text model do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from onlooker.operators.convert.tree import array_shape, check_tree, count_layers

from .config import Vid2SeqConfig

_VISUAL = "encoder/visual_encoder"
_ENCODER = "encoder/video_encoder/encoder_module"
_DECODER = "text_decoder/decoder_module"
_WORDS = "shared_decoder_token_embedder/embedding"
_OUTPUT = f"{_DECODER}/logits_dense/kernel"

_OF = "the reference's Vid2Seq"
_shape, _count = partial(array_shape, of=_OF), partial(count_layers, of=_OF)


class _Entry(NamedTuple):
    """One of our tensors and the arrays it is made of."""

    ours: str
    theirs: tuple[str, ...]
    shape: tuple[int, ...]
    """Of each of `theirs`."""
    form: Callable[[Tensor], Tensor]
    """Brings one of `theirs` into our form; several are then joined along the first axis."""


def reference_shapes(config: Vid2SeqConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array of the reference's tree for a model of these sizes."""
    return {name: entry.shape for entry in _entries(config) for name in entry.theirs}


def config_from_reference(params: Mapping[str, Any], **options: Any) -> Vid2SeqConfig:
    """Config whose sizes are read off a tree; `options` are what a tree does not tell (`num_bins`, `dtype`, ...).

    Raises:
        ReferenceTreeError: an array that tells a size is missing or has another number of axes.
    """
    text, visual = f"{_ENCODER}/layers_0", f"{_VISUAL}/encoderblock_0"
    heads, buckets = _shape(params, f"{_ENCODER}/relpos_bias/rel_embedding", 2)
    _, frames, width = _shape(params, f"{_VISUAL}/posembed_input/pos_embedding", 3)
    sizes = {
        "vocab_size": _shape(params, _WORDS, 2)[0],
        "num_frames": frames,
        "width": width,
        "num_heads": heads,
        "head_dim": _shape(params, f"{text}/attention/query/kernel", 2)[1] // heads,
        "ffn_size": _shape(params, f"{text}/mlp/wi_0/kernel", 2)[1],
        "encoder_layers": _count(params, f"{_ENCODER}/layers_"),
        "decoder_layers": _count(params, f"{_DECODER}/layers_"),
        "relative_buckets": buckets,
        "tie_word_embeddings": _OUTPUT not in params,
        "visual_layers": _count(params, f"{_VISUAL}/encoderblock_"),
        "visual_heads": _shape(params, f"{visual}/MultiHeadDotProductAttention_0/query/kernel", 3)[1],
        "visual_ffn_size": _shape(params, f"{visual}/MlpBlock_0/Dense_0/kernel", 2)[1],
    }
    return Vid2SeqConfig(**{**sizes, **options})


def state_from_reference(params: Mapping[str, Any], config: Vid2SeqConfig) -> dict[str, Tensor]:
    """State dict of a `Vid2Seq` of these sizes.

    Args:
        params: arrays by their path below the root of the reference's `params` collection.
        config: see `config_from_reference`.

    Raises:
        ReferenceTreeError: arrays are missing, unknown or of another shape; the message names them.
    """
    expected = reference_shapes(config)
    check_tree(expected, params)
    return {
        entry.ours: torch.cat([entry.form(_tensor(params[name])) for name in entry.theirs]).contiguous()
        for entry in _entries(config)
    }


def _entries(config: Vid2SeqConfig) -> list[_Entry]:
    entries = [
        _Entry("shared.weight", (_WORDS,), (config.vocab_size, config.width), _same),
        *_visual(config),
        *_text(config, _ENCODER, "encoder", {"attention": "SelfAttention"}, config.encoder_layers),
        *_text(
            config,
            _DECODER,
            "decoder",
            {"self_attention": "SelfAttention", "encoder_decoder_attention": "EncDecAttention"},
            config.decoder_layers,
        ),
    ]
    if not config.tie_word_embeddings:
        entries.append(_Entry("lm_head.weight", (_OUTPUT,), (config.width, config.vocab_size), _kernel(config.width)))
    return entries


def _visual(config: Vid2SeqConfig) -> list[_Entry]:
    width, heads, ffn = config.width, config.visual_heads, config.visual_ffn_size
    per_head = (heads, width // heads)
    positions = f"{_VISUAL}/posembed_input/pos_embedding"
    entries = [_Entry("visual.positions", (positions,), (1, config.num_frames, width), _first)]
    entries += _norm(f"{_VISUAL}/encoder_norm", "visual.stack.norm", width)
    for layer in range(config.visual_layers):
        theirs, ours = f"{_VISUAL}/encoderblock_{layer}", f"visual.stack.layers.{layer}"
        attention = f"{theirs}/MultiHeadDotProductAttention_0"
        inputs = [f"{attention}/{part}" for part in ("query", "key", "value")]
        kernels, biases = (tuple(f"{name}/{leaf}" for name in inputs) for leaf in ("kernel", "bias"))
        output = f"{attention}/out/kernel"
        entries += [
            *_norm(f"{theirs}/LayerNorm_0", f"{ours}.norm1", width),
            *_norm(f"{theirs}/LayerNorm_1", f"{ours}.norm2", width),
            _Entry(f"{ours}.self_attn.in_proj_weight", kernels, (width, *per_head), _kernel(width)),
            _Entry(f"{ours}.self_attn.in_proj_bias", biases, per_head, torch.flatten),
            _Entry(f"{ours}.self_attn.out_proj.weight", (output,), (*per_head, width), _kernel(width)),
            _Entry(f"{ours}.self_attn.out_proj.bias", (f"{attention}/out/bias",), (width,), _same),
            *_dense(f"{theirs}/MlpBlock_0/Dense_0", f"{ours}.linear1", width, ffn),
            *_dense(f"{theirs}/MlpBlock_0/Dense_1", f"{ours}.linear2", ffn, width),
        ]
    return entries


def _text(config: Vid2SeqConfig, theirs: str, ours: str, attentions: dict[str, str], layers: int) -> list[_Entry]:
    """A T5 stack; `attentions` are the attention parts of a layer in order, their name to ours."""
    width, inner, ffn = config.width, config.num_heads * config.head_dim, config.ffn_size
    table = f"{theirs}/relpos_bias/rel_embedding"
    bias = f"{ours}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    entries = [
        _Entry(bias, (table,), (config.num_heads, config.relative_buckets), _kernel(config.num_heads)),
        _Entry(f"{ours}.final_layer_norm.weight", (f"{theirs}/{ours}_norm/scale",), (width,), _same),
    ]
    for number in range(layers):
        layer, block = f"{theirs}/layers_{number}", f"{ours}.block.{number}.layer"
        for part, (name, module) in enumerate(attentions.items()):
            norm = "pre_cross_attention" if name == "encoder_decoder_attention" else f"pre_{name}"
            entries.append(
                _Entry(f"{block}.{part}.layer_norm.weight", (f"{layer}/{norm}_layer_norm/scale",), (width,), _same)
            )
            for leaf in ("query", "key", "value", "out"):
                shape = (inner, width) if leaf == "out" else (width, inner)
                weight = f"{block}.{part}.{module}.{leaf[0]}.weight"
                entries.append(_Entry(weight, (f"{layer}/{name}/{leaf}/kernel",), shape, _kernel(shape[0])))
        last = f"{block}.{len(attentions)}"
        entries.append(_Entry(f"{last}.layer_norm.weight", (f"{layer}/pre_mlp_layer_norm/scale",), (width,), _same))
        for leaf, shape in (("wi_0", (width, ffn)), ("wi_1", (width, ffn)), ("wo", (ffn, width))):
            weight = f"{last}.DenseReluDense.{leaf}.weight"
            entries.append(_Entry(weight, (f"{layer}/mlp/{leaf}/kernel",), shape, _kernel(shape[0])))
    return entries


def _norm(theirs: str, ours: str, width: int) -> list[_Entry]:
    names = (("weight", "scale"), ("bias", "bias"))
    return [_Entry(f"{ours}.{mine}", (f"{theirs}/{other}",), (width,), _same) for mine, other in names]


def _dense(theirs: str, ours: str, inputs: int, outputs: int) -> list[_Entry]:
    return [
        _Entry(f"{ours}.weight", (f"{theirs}/kernel",), (inputs, outputs), _kernel(inputs)),
        _Entry(f"{ours}.bias", (f"{theirs}/bias",), (outputs,), _same),
    ]


def _kernel(inputs: int) -> Callable[[Tensor], Tensor]:
    """(in, out), either of them possibly in two axes, to (out, in)."""

    def form(array: Tensor) -> Tensor:
        return array.reshape(inputs, -1).T

    return form


def _same(array: Tensor) -> Tensor:
    return array


def _first(array: Tensor) -> Tensor:
    return array[0]


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array.float()
    return torch.from_numpy(np.array(array, dtype=np.float32))
