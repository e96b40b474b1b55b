"""Vid2Seq models in folders: ours, and T5 text models of transformers as initial weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from onlooker.operators.model_folder import read_words, save_weights, save_words

from .config import Vid2SeqConfig, Vid2SeqError
from .model import Vid2Seq

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_KIND = "architecture"
_VID2SEQ = "vid2seq"


def save_vid2seq(
    folder: str | Path, model: Vid2Seq, pieces: Sequence[str] | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write a folder that `load_vid2seq` reads: `config.json`, `model.safetensors`, and `vocab.txt` if there are words.

    Args:
        folder: made if it does not exist.
        model: what is written.
        pieces: the words of its vocabulary by their ids, for models whose words are not a T5's.
        dtype: of the stored weights; None = as they are.

    Raises:
        Vid2SeqError: more words than the model has tokens for.
    """
    if pieces is not None and len(pieces) > model.config.times.vocab_size:
        raise Vid2SeqError(f"{len(pieces)} words, but the model has rows for {model.config.times.vocab_size}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = {_KIND: _VID2SEQ, **model.config.to_dict()}
    (folder / _CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    state = {name: tensor.to("cpu", dtype) for name, tensor in model.state_dict().items()}
    save_weights(state, folder / _WEIGHTS)
    save_words(folder, pieces or ())


def load_vid2seq(folder: str | Path, device: str | torch.device = "cpu") -> Vid2Seq:
    """The model that `save_vid2seq` wrote, in evaluation mode, float32 weights.

    Raises:
        Vid2SeqError: the folder is not such a model.
    """
    folder = Path(folder)
    values = _read_json(folder, _CONFIG)
    kind = values.pop(_KIND, None)
    if kind != _VID2SEQ:
        raise Vid2SeqError(f"folder {folder.name!r} is no Vid2Seq model: {_CONFIG} says {_KIND} {kind!r}")
    try:
        model = build(Vid2SeqConfig.from_dict(values), _read_weights(folder))
    except TypeError as error:
        raise Vid2SeqError(f"Vid2Seq model {folder.name!r} cannot be loaded: {error}") from error
    return model.to(device).eval()


def load_pieces(folder: str | Path) -> list[str]:
    """The words of the model in a folder by their ids; none where its words are a T5's."""
    return list(read_words(Path(folder)))


def build(config: Vid2SeqConfig, state: dict[str, Tensor]) -> Vid2Seq:
    """A model with the weights `state`, taken over as float32 without drawing random ones first.

    Raises:
        Vid2SeqError: the weights are not those of a model of these sizes.
    """
    with torch.device("meta"):
        model = Vid2Seq(config)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise Vid2SeqError(f"the weights do not fit the config: {' '.join(str(error).split())}") from error
    return model


def from_t5(folder: str | Path, num_bins: int = 100, **options: Any) -> Vid2Seq:
    """A new model whose text part starts from a T5 v1.1 of transformers; the rest and the time tokens are random.

    Args:
        folder: local folder with `config.json` and safetensors weights, as `save_pretrained` writes them.
        num_bins: time tokens, which are put behind the words of the T5.
        options: of `Vid2SeqConfig`; those that the T5 decides may not be among them.

    Raises:
        Vid2SeqError: the folder holds no such T5, or an option is unknown or the T5's to decide.
    """
    folder = Path(folder)
    sizes = _t5_sizes(folder, _read_json(folder, _CONFIG))
    taken = sorted(sizes.keys() & options.keys())
    if taken:
        raise Vid2SeqError(f"{', '.join(taken)}: the T5 in {folder.name!r} decides; leave out")
    weights = _read_weights(folder)
    try:
        config = Vid2SeqConfig(**{**sizes, "vocab_size": sizes["vocab_size"] + num_bins}, num_bins=num_bins, **options)
    except TypeError as error:
        raise Vid2SeqError(f"unknown option for a Vid2Seq model: {error}") from error
    model = Vid2Seq(config)
    tables = ("shared.weight",) if config.tie_word_embeddings else ("shared.weight", "lm_head.weight")
    state = model.state_dict()
    for name, tensor in state.items():
        if name.startswith("visual."):
            continue
        if name not in weights:
            raise Vid2SeqError(f"the T5 in {folder.name!r} lacks {name}")
        target = tensor[: config.times.vocab_size] if name in tables else tensor
        if target.shape != weights[name].shape:
            raise Vid2SeqError(
                f"the T5 in {folder.name!r} has {name} {tuple(weights[name].shape)}, its {_CONFIG} means "
                f"{tuple(target.shape)}"
            )
        target.copy_(weights[name])
    return model


def _t5_sizes(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """What a T5's config decides of ours."""
    if values.get("model_type") != "t5":
        raise Vid2SeqError(f"folder {folder.name!r} holds no T5: its model_type is {values.get('model_type')!r}")
    if values.get("feed_forward_proj") != "gated-gelu":
        raise Vid2SeqError(
            f"the T5 in {folder.name!r} has feed_forward_proj {values.get('feed_forward_proj')!r}; a v1.1 model with "
            "'gated-gelu' is needed"
        )
    try:
        return {
            "vocab_size": values["vocab_size"],
            "width": values["d_model"],
            "num_heads": values["num_heads"],
            "head_dim": values["d_kv"],
            "ffn_size": values["d_ff"],
            "encoder_layers": values["num_layers"],
            "decoder_layers": values.get("num_decoder_layers") or values["num_layers"],
            "relative_buckets": values.get("relative_attention_num_buckets", 32),
            "relative_max_distance": values.get("relative_attention_max_distance", 128),
            "tie_word_embeddings": False,
        }
    except KeyError as error:
        raise Vid2SeqError(f"{_CONFIG} of the T5 in {folder.name!r} lacks {error}") from error


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise Vid2SeqError(f"folder {str(folder)!r} has no readable {name}: {error.strerror}") from error
    except ValueError as error:
        raise Vid2SeqError(f"{name} in folder {folder.name!r} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise Vid2SeqError(f"{name} in folder {folder.name!r} is not a JSON object")
    return values


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors`, or of the shards that its index names."""
    files = [_WEIGHTS]
    if not (folder / _WEIGHTS).is_file():
        if not (folder / _INDEX).is_file():
            raise Vid2SeqError(
                f"folder {folder.name!r} has no {_WEIGHTS}; weights in pickle files (*.bin) are not read, save them "
                "as safetensors first"
            )
        files = sorted(set(_read_json(folder, _INDEX).get("weight_map", {}).values()))
    weights: dict[str, Tensor] = {}
    for name in files:
        try:
            weights.update(load_file(folder / name))
        except (OSError, SafetensorError) as error:
            raise Vid2SeqError(f"{name} in folder {folder.name!r} cannot be read: {error}") from error
    return weights
