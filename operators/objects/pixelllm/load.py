"""PixelLLMs as folders: `config.json`, `model.safetensors` and `vocab.txt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from onlooker.operators.errors import OnlookerError
from onlooker.operators.model_folder import (
    VOCABULARY,
    Once,
    Shelf,
    check_words,
    load_weights,
    read_words,
    save_model,
    save_words,
)

from .config import PixelLlmConfig
from .model import PixelLlm

ARCHITECTURE = "pixelllm"


class PixelLlmError(OnlookerError):
    """A PixelLLM cannot be loaded; the message names the value and what to do."""


_SHELF = Shelf(
    Path(__file__).parent / "weights", "PixelLLM", PixelLlmError, ("config.json", "model.safetensors", VOCABULARY)
)


@dataclass(frozen=True)
class StoredPixelLlm:
    """What a folder holds.

    Attributes:
        model: in eval mode, float32; its parameters ask for no gradient.
        pieces: the words by their ids.
        tower: name of the tower whose features it reads; empty if it has trunks of its own.
        settings: what its training found out, as plain values.
    """

    model: PixelLlm
    pieces: tuple[str, ...]
    tower: str
    settings: Mapping[str, Any]


def pixelllm_names() -> list[str]:
    """Names of the models that come with the package."""
    return _SHELF.names()


def save_pixelllm(
    folder: str | Path,
    model: PixelLlm,
    pieces: Sequence[str],
    *,
    tower: str = "",
    settings: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a folder that `load_pixelllm` reads; it is made if it does not exist.

    Args:
        folder: its place.
        model: the model.
        pieces: the words by their ids, at most as many as the model's.
        tower: name of the tower whose features it reads.
        settings: values that go with the weights, plain ones.
        dtype: of the stored weights.

    Raises:
        ValueError: more words than the model has rows for.
    """
    check_words(pieces, model.config.decoder.vocab_size)
    folder = Path(folder)
    save_model(folder, ARCHITECTURE, model, model.config.to_dict(), tower=tower, settings=settings, dtype=dtype)
    save_words(folder, pieces)


def load_pixelllm(name_or_folder: str | Path, device: str = "cpu") -> StoredPixelLlm:
    """The model of a name that comes with the package, or in a folder that `save_pixelllm` wrote.

    Callers of one process share one instance per place and device, so a folder that changes is read once.

    Raises:
        PixelLlmError: no such name or folder, or its files do not make a model.
    """
    return _loaded(_SHELF.folder(name_or_folder), device)


def read_pixelllm(folder: Path, device: str = "cpu") -> StoredPixelLlm:
    """The model in a folder, read anew.

    Raises:
        PixelLlmError: its files do not make a model.
    """
    with _SHELF.reading(folder, ARCHITECTURE) as values:
        model = PixelLlm(PixelLlmConfig.from_dict(values["model"]))
        load_weights(model, load_file(folder / "model.safetensors"))
        tower, settings, pieces = str(values["tower"]), dict(values["settings"]), read_words(folder)
        check_words(pieces, model.config.decoder.vocab_size)
    return StoredPixelLlm(model.to(device).eval().requires_grad_(False), pieces, tower, settings)


_loaded = Once(read_pixelllm)
