"""Dense and paragraph captioners as folders: `config.json`, `model.safetensors` and `vocab.txt`.

`config.json` holds the kind of model and its configuration; `vocab.txt` the words, one a line, whose ids stand before
the time tokens. A folder may say that its weights are told as a difference from those of an embedded captioner (`base`,
see `difference`); then it is small.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from onlooker.operators.caption.dense import DenseCaptioner
from onlooker.operators.caption.dense_config import DenseConfig, ParagraphConfig
from onlooker.operators.caption.difference import as_difference, with_difference
from onlooker.operators.caption.load import FILES, CaptionerError, embedded_weights
from onlooker.operators.caption.paragraph import ParagraphCaptioner
from onlooker.operators.model_folder import Shelf, check_words, load_weights, read_words, save_weights, save_words

VideoCaptioner = DenseCaptioner | ParagraphCaptioner
_KIND, _BASE = "architecture", "base"
_DENSE, _PARAGRAPH = "git-dense", "git-paragraph"
_SHELF = Shelf(Path(__file__).parent / "dense_weights", "dense captioner", CaptionerError, FILES)
_DECODER = "decoder."


class LoadedCaptioner(NamedTuple):
    """What a folder holds."""

    model: VideoCaptioner
    """In eval mode, float32."""
    pieces: list[str]
    """The words of the vocabulary by their ids."""


def video_captioner_names() -> list[str]:
    """Names of the dense captioners that come with the package."""
    return _SHELF.names()


def save_video_captioner(
    folder: str | Path,
    model: VideoCaptioner,
    pieces: Sequence[str],
    dtype: torch.dtype = torch.float32,
    *,
    base: str | None = None,
) -> None:
    """Write a folder that `load_video_captioner` reads.

    Args:
        folder: made if it does not exist.
        model: the captioner.
        pieces: the words of its vocabulary by their ids.
        dtype: of the stored weights.
        base: name of an embedded captioner that this one was trained from: keep only the difference, in few bits.

    Raises:
        ValueError: more words than the model has tokens for.
    """
    check_words(pieces, _words(model))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kind = _DENSE if isinstance(model, DenseCaptioner) else _PARAGRAPH
    values = {_KIND: kind, **model.config.to_dict()}
    # named_parameters tells a kernel that is tied to another one only once, as safetensors wants it.
    state = {name: p.detach().cpu() for name, p in model.named_parameters()}
    if base is not None:
        values[_BASE] = base
        state = as_difference(state, _base_weights(base))
    state = {name: weights.to(dtype) if weights.is_floating_point() else weights for name, weights in state.items()}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_words(folder, pieces)
    save_weights(state, folder / "model.safetensors")


def load_video_captioner(name_or_folder: str | Path, device: str = "cpu") -> LoadedCaptioner:
    """The captioner of a name that comes with the package, or in a folder that `save_video_captioner` wrote.

    Raises:
        CaptionerError: no such name or folder, or its files do not make a captioner.
    """
    folder = _SHELF.folder(name_or_folder)
    try:
        values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        base = values.pop(_BASE, None)
        model = _build(values)
        state: dict[str, Any] = load_file(folder / "model.safetensors")
        if base is not None:
            state = with_difference(state, _base_weights(base))
        load_weights(model, state)
        pieces = list(read_words(folder))
        check_words(pieces, _words(model))
    except Exception as error:  # safetensors raises a type of its own, torch a RuntimeError, json a ValueError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CaptionerError(f"video captioner {folder.name!r} cannot be loaded: {reason}") from error
    return LoadedCaptioner(model.to(device).eval(), pieces)


def _base_weights(name: str) -> dict[str, Tensor]:
    """The decoder of an embedded captioner as part of a dense model."""
    return {_DECODER + part: weights for part, weights in embedded_weights(name).items()}


def _build(values: dict[str, Any]) -> VideoCaptioner:
    kind = values.pop(_KIND, None)
    if kind == _DENSE:
        return DenseCaptioner(DenseConfig.from_dict(values))
    if kind == _PARAGRAPH:
        return ParagraphCaptioner(ParagraphConfig.from_dict(values))
    raise ValueError(f"config.json says {_KIND} {kind!r}, known are {_DENSE!r} and {_PARAGRAPH!r}")


def _words(model: VideoCaptioner) -> int:
    """Rows of the vocabulary that are not time tokens."""
    times = model.config.num_bins if isinstance(model, DenseCaptioner) else 0
    return model.config.decoder.vocab_size - times
