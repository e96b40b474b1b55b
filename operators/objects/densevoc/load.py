"""Models of objects as folders: `config.json`, `model.safetensors`, and `vocab.txt` where they write captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from onlooker.operators.errors import OnlookerError
from onlooker.operators.model_folder import Once, Shelf, check_words, load_weights, read_words, save_model, save_words

from .model import DenseVoc, DenseVocConfig

__all__ = [
    "ARCHITECTURE",
    "ObjectModel",
    "ObjectModelError",
    "load_object_model",
    "object_model_names",
    "read_object_model",
    "save_object_model",
]

ARCHITECTURE = "densevoc"


class ObjectModelError(OnlookerError):
    """A model of objects cannot be loaded; the message names the value and what to do."""


_SHELF = Shelf(Path(__file__).parents[1] / "weights", "object model", ObjectModelError)


@dataclass(frozen=True)
class ObjectModel:
    """What a folder holds.

    Attributes:
        model: in eval mode, float32; its parameters ask for no gradient.
        tower: name of the tower whose maps it reads; empty if it has a backbone of its own.
        settings: what its training found out, thresholds and the like, as plain values.
        pieces: the words of its captions by their ids; empty if it writes none.
    """

    model: DenseVoc
    tower: str
    settings: Mapping[str, Any]
    pieces: tuple[str, ...]


def object_model_names() -> list[str]:
    """Names of the models that come with the package."""
    return _SHELF.names()


def save_object_model(
    folder: str | Path,
    model: DenseVoc,
    *,
    tower: str = "",
    settings: Mapping[str, Any] | None = None,
    pieces: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a folder that `load_object_model` reads.

    Args:
        folder: made if it does not exist.
        model: the model.
        tower: name of the tower whose maps it reads.
        settings: values that go with the weights, plain ones.
        pieces: the words of its captions by their ids.
        dtype: of the stored weights.

    Raises:
        ValueError: there are words, but no captioner with a row for each.
    """
    check_words(pieces, _rows(model))
    folder = Path(folder)
    save_model(folder, ARCHITECTURE, model, model.config.to_dict(), tower=tower, settings=settings, dtype=dtype)
    save_words(folder, pieces)


def load_object_model(name_or_folder: str | Path, device: str = "cpu") -> ObjectModel:
    """The model of a name that comes with the package, or in a folder that `save_object_model` wrote.

    Callers of one process share one instance per place and device, so a folder that changes is read once.

    Raises:
        ObjectModelError: no such name or folder, or its files do not make a model.
    """
    return _loaded(_SHELF.folder(name_or_folder), device)


def read_object_model(folder: Path, device: str = "cpu") -> ObjectModel:
    """The model in a folder, read anew.

    Raises:
        ObjectModelError: its files do not make a model.
    """
    with _SHELF.reading(folder, ARCHITECTURE) as values:
        model = DenseVoc(DenseVocConfig.from_dict(values["model"]))
        load_weights(model, load_file(folder / "model.safetensors"))
        tower, settings, pieces = str(values["tower"]), dict(values["settings"]), read_words(folder)
        check_words(pieces, _rows(model))
    return ObjectModel(model.to(device).eval().requires_grad_(False), tower, settings, pieces)


_loaded = Once(read_object_model)


def _rows(model: DenseVoc) -> int:
    """How many words it has room for."""
    return 0 if model.config.captioner is None else model.config.captioner.vocab_size
