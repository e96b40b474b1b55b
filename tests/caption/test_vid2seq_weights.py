"""Weights of Vid2Seq: the reference's trees, folders of ours, T5 models of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

from onlooker.operators.caption.contexts import StreamingOptions
from onlooker.operators.caption.dense_config import SearchConfig
from onlooker.operators.caption.vid2seq.config import Vid2SeqConfig, Vid2SeqError
from onlooker.operators.caption.vid2seq.convert import config_from_reference, reference_shapes, state_from_reference
from onlooker.operators.caption.vid2seq.load import build, from_t5, load_vid2seq, save_vid2seq
from onlooker.operators.caption.vid2seq.model import Encoded, Vid2Seq
from onlooker.operators.convert.read import ReferenceTreeError

from .test_vid2seq import TINY, features_of, rows_of, tiny

# The reference's tree at its published size; {} is the number of a layer, 0..11.
VISUAL = {
    "posembed_input/pos_embedding": (1, 100, 768),
    "encoderblock_{}/LayerNorm_0/scale": (768,),
    "encoderblock_{}/LayerNorm_0/bias": (768,),
    "encoderblock_{}/LayerNorm_1/scale": (768,),
    "encoderblock_{}/LayerNorm_1/bias": (768,),
    "encoderblock_{}/MlpBlock_0/Dense_0/kernel": (768, 2048),
    "encoderblock_{}/MlpBlock_0/Dense_0/bias": (2048,),
    "encoderblock_{}/MlpBlock_0/Dense_1/kernel": (2048, 768),
    "encoderblock_{}/MlpBlock_0/Dense_1/bias": (768,),
    "encoderblock_{}/MultiHeadDotProductAttention_0/query/kernel": (768, 12, 64),
    "encoderblock_{}/MultiHeadDotProductAttention_0/query/bias": (12, 64),
    "encoderblock_{}/MultiHeadDotProductAttention_0/key/kernel": (768, 12, 64),
    "encoderblock_{}/MultiHeadDotProductAttention_0/key/bias": (12, 64),
    "encoderblock_{}/MultiHeadDotProductAttention_0/value/kernel": (768, 12, 64),
    "encoderblock_{}/MultiHeadDotProductAttention_0/value/bias": (12, 64),
    "encoderblock_{}/MultiHeadDotProductAttention_0/out/kernel": (12, 64, 768),
    "encoderblock_{}/MultiHeadDotProductAttention_0/out/bias": (768,),
    "encoder_norm/scale": (768,),
    "encoder_norm/bias": (768,),
}
MLP = {
    "layers_{}/mlp/wi_0/kernel": (768, 2048),
    "layers_{}/mlp/wi_1/kernel": (768, 2048),
    "layers_{}/mlp/wo/kernel": (2048, 768),
    "layers_{}/pre_mlp_layer_norm/scale": (768,),
    "relpos_bias/rel_embedding": (12, 32),
}
ENCODER = MLP | {
    **{f"layers_{{}}/attention/{part}/kernel": (768, 768) for part in ("query", "key", "value", "out")},
    "layers_{}/pre_attention_layer_norm/scale": (768,),
    "encoder_norm/scale": (768,),
}
DECODER = MLP | {
    **{
        f"layers_{{}}/{attention}/{part}/kernel": (768, 768)
        for attention in ("self_attention", "encoder_decoder_attention")
        for part in ("query", "key", "value", "out")
    },
    "layers_{}/pre_self_attention_layer_norm/scale": (768,),
    "layers_{}/pre_cross_attention_layer_norm/scale": (768,),
    "decoder_norm/scale": (768,),
    "logits_dense/kernel": (768, 32228),
}


def published_tree() -> dict[str, tuple[int, ...]]:
    parts = {
        "encoder/visual_encoder": VISUAL,
        "encoder/video_encoder/encoder_module": ENCODER,
        "text_decoder/decoder_module": DECODER,
        "shared_decoder_token_embedder": {"embedding": (32228, 768)},
    }
    return {
        f"{part}/{name.format(layer)}": shape
        for part, names in parts.items()
        for name, shape in names.items()
        for layer in range(12)
    }


def tree_of(config: Vid2SeqConfig, seed: int = 0) -> dict[str, Any]:
    """A random tree, as NumPy arrays."""
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape, np.float32) for name, shape in reference_shapes(config).items()}


def test_published_size() -> None:
    """Names and shapes of all arrays, and that they become our parameters, without holding any numbers."""
    tree = published_tree()
    assert len(tree) == 477
    assert sum(int(np.prod(shape)) for shape in tree.values()) == 313_977_600
    assert reference_shapes(Vid2SeqConfig()) == tree
    params = {name: torch.empty(shape, device="meta") for name, shape in tree.items()}
    assert config_from_reference(params) == Vid2SeqConfig()
    with torch.device("meta"):
        model = Vid2Seq(Vid2SeqConfig())
    state = state_from_reference(params, Vid2SeqConfig())
    assert {name: t.shape for name, t in state.items()} == {name: t.shape for name, t in model.state_dict().items()}


def test_sizes_are_read_off_a_tree() -> None:
    config = config_from_reference(tree_of(TINY), num_bins=8, dropout=0.0, max_length=14)
    assert config == TINY


def test_a_kernel_is_turned_and_heads_are_kept_together() -> None:
    """One head of the visual attention and one of the text model, followed by hand."""
    tree = tree_of(TINY)
    state = state_from_reference(tree, TINY)
    query = tree["encoder/visual_encoder/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"]
    value = tree["encoder/visual_encoder/encoderblock_0/MultiHeadDotProductAttention_0/value/bias"]
    packed = state["visual.stack.layers.0.self_attn.in_proj_weight"]
    assert packed[8 + 3, 5] == query[5, 1, 3]
    assert state["visual.stack.layers.0.self_attn.in_proj_bias"][2 * 16 + 8 + 3] == value[1, 3]
    table = tree["text_decoder/decoder_module/relpos_bias/rel_embedding"]
    assert state["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"][30, 1] == table[1, 30]


def test_trees_that_do_not_fit() -> None:
    name = "text_decoder/decoder_module/layers_1/mlp/wo/kernel"
    tree = tree_of(TINY)
    short = {key: value for key, value in tree.items() if key != name}
    with pytest.raises(ReferenceTreeError, match=f"lacks {name}"):
        state_from_reference(short, TINY)
    with pytest.raises(ReferenceTreeError, match="has unknown extra/scale"):
        state_from_reference(tree | {"extra/scale": np.zeros(3)}, TINY)
    with pytest.raises(ReferenceTreeError, match=rf"{name} is \(3, 3\) instead of \(24, 16\)"):
        state_from_reference(tree | {name: np.zeros((3, 3))}, TINY)
    with pytest.raises(ReferenceTreeError, match="lacks encoder/video_encoder/encoder_module/relpos_bias"):
        config_from_reference({"some/kernel": np.zeros(3)})
    with pytest.raises(ReferenceTreeError, match="and 68 more"):
        state_from_reference({}, TINY)


def test_tied_output() -> None:
    """Without an output kernel the embedding is used, scaled."""
    tree = tree_of(TINY)
    del tree["text_decoder/decoder_module/logits_dense/kernel"]
    config = config_from_reference(tree, num_bins=8)
    assert config.tie_word_embeddings
    model = build(config, state_from_reference(tree, config)).eval()
    hidden = torch.randn(3, 16)
    expected = hidden @ torch.from_numpy(tree["shared_decoder_token_embedder/embedding"]).T / 4.0
    torch.testing.assert_close(model.logits(hidden).detach(), expected)


# --- Our folders


def test_saved_models_come_back(tmp_path: Path) -> None:
    model = tiny(test_points=4, search=SearchConfig("greedy"), context=StreamingOptions(copy_context=True))
    save_vid2seq(tmp_path / "model", model)
    loaded = load_vid2seq(tmp_path / "model")
    assert loaded.config == model.config and not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(Vid2SeqError, match="has no readable config.json"):
        load_vid2seq(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Vid2SeqError, match="is no Vid2Seq model: config.json says architecture None"):
        load_vid2seq(tmp_path)
    save_vid2seq(tmp_path, tiny())
    values = json.loads((tmp_path / "config.json").read_text())
    values["ffn_size"] = 25
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(Vid2SeqError, match="the weights do not fit the config: .*wi_0"):
        load_vid2seq(tmp_path)
    values["colour"] = 1
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(Vid2SeqError, match="cannot be loaded: .*colour"):
        load_vid2seq(tmp_path)
    save_vid2seq(tmp_path, tiny())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(Vid2SeqError, match="model.safetensors in folder .* cannot be read"):
        load_vid2seq(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(Vid2SeqError, match="has no model.safetensors; weights in pickle files"):
        load_vid2seq(tmp_path)


# --- T5 models of transformers

T5 = {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2}
VISUAL_OPTIONS = {"num_frames": 8, "visual_layers": 1, "visual_heads": 2, "visual_ffn_size": 24}


@pytest.fixture
def t5(tmp_path: Path) -> tuple[Path, T5ForConditionalGeneration]:
    """A small T5 v1.1 with an output of its own, and its folder in the form of the published ones."""
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)).eval()
    model.lm_head.weight = torch.nn.Parameter(torch.randn(32, 16))
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if "embed_tokens" not in name}
    save_file(state, tmp_path / "model.safetensors")
    values = T5 | {"model_type": "t5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tmp_path, model


@torch.no_grad()
def test_text_part_from_a_t5(t5: tuple[Path, T5ForConditionalGeneration]) -> None:
    """With only the T5's own inputs the logits of words are those of transformers' forward."""
    folder, theirs = t5
    model = from_t5(folder, num_bins=8, **VISUAL_OPTIONS).eval()
    assert model.config.vocab_size == 40 and model.config.decoder_layers == 3
    question, text = torch.tensor([[5, 9, 12, 3, 1]]), torch.tensor([[0, 7, 8, 30, 4, 1]])
    encoded = Encoded(model.encode_prefix(question), torch.ones(1, 5, dtype=torch.bool))
    logits = model.logits(model.decode(text, encoded))
    expected = theirs(input_ids=question, decoder_input_ids=text).logits
    # At the last position our mask hides the position itself: it has nothing left to predict.
    assert theirs.config.scale_decoder_outputs is False
    torch.testing.assert_close(logits[:, :-1, :32], expected[:, :-1], atol=1e-5, rtol=1e-5)
    frames = model(features_of(1), rows_of([0, 33, 36, 4, 1])[:, None])
    assert frames.shape == (1, 10, 40)


def test_sharded_t5(t5: tuple[Path, T5ForConditionalGeneration]) -> None:
    folder, theirs = t5
    whole = from_t5(folder, 8, **VISUAL_OPTIONS).state_dict()
    (folder / "model.safetensors").unlink()
    state = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items() if "embed_tokens" not in name}
    shards = [dict(list(state.items())[:10]), dict(list(state.items())[10:])]
    index = {}
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"model-{number}.safetensors")
        index |= dict.fromkeys(shard, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    again = from_t5(folder, 8, **VISUAL_OPTIONS).state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in state if not name.startswith(("shared", "lm_head")))
    assert torch.equal(whole["shared.weight"][:32], again["shared.weight"][:32])


def test_folders_that_hold_no_fitting_t5(t5: tuple[Path, T5ForConditionalGeneration]) -> None:
    folder, _ = t5
    with pytest.raises(Vid2SeqError, match="width: the T5 in .* decides"):
        from_t5(folder, 8, width=16)
    with pytest.raises(Vid2SeqError, match="unknown option .*colour"):
        from_t5(folder, 8, colour=1)
    values = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"model_type": "bert"}, "holds no T5: its model_type is 'bert'"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj 'relu'; a v1.1 model"),
        ({"d_ff": 25}, r"has .*wi_0.weight \(24, 16\), its config.json means \(25, 16\)"),
        ({"num_layers": 3}, r"lacks encoder.block.2"),
    ):
        (folder / "config.json").write_text(json.dumps(values | changes))
        with pytest.raises(Vid2SeqError, match=message):
            from_t5(folder, 8, **VISUAL_OPTIONS)
    del values["d_kv"]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(Vid2SeqError, match="lacks 'd_kv'"):
        from_t5(folder, 8)
