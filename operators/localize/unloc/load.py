"""Localizers as folders: `config.json` (the model's configuration, its tower, settings) and `model.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from onlooker.operators.errors import OnlookerError
from onlooker.operators.model_folder import Once, Shelf, load_weights, save_model

from .config import UnlocConfig
from .model import Unloc

ARCHITECTURE = "unloc"


class LocalizerError(OnlookerError):
    """A localizer cannot be loaded; the message names the value and what to do."""


_SHELF = Shelf(Path(__file__).parents[1] / "weights", "localizer", LocalizerError)


@dataclass(frozen=True)
class Localizer:
    """What a folder holds.

    Attributes:
        model: in eval mode, float32; its parameters ask for no gradient.
        tower: name of the tower whose features it reads; empty if it has towers of its own.
        settings: what its training found out: rates, thresholds and the like, as plain values.
    """

    model: Unloc
    tower: str
    settings: Mapping[str, Any]


def localizer_names() -> list[str]:
    """Names of the localizers that come with the package."""
    return _SHELF.names()


def save_localizer(
    folder: str | Path,
    model: Unloc,
    *,
    tower: str = "",
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a folder that `load_localizer` reads.

    Args:
        folder: made if it does not exist.
        model: the model.
        tower: name of the tower whose features it reads.
        extra: settings that go with the weights, plain values.
        dtype: of the stored weights.
    """
    config = model.config.to_dict()
    save_model(Path(folder), ARCHITECTURE, model, config, tower=tower, settings=extra, dtype=dtype)


def load_localizer(name_or_folder: str | Path, device: str = "cpu") -> Localizer:
    """The localizer of a name that comes with the package, or in a folder that `save_localizer` wrote.

    Callers of one process share one instance per place and device, so a folder that changes is read once.

    Raises:
        LocalizerError: no such name or folder, or its files do not make a localizer.
    """
    return _loaded(_SHELF.folder(name_or_folder), device)


def read_localizer(folder: Path, device: str = "cpu") -> Localizer:
    """The localizer in a folder, read anew.

    Raises:
        LocalizerError: its files do not make a localizer.
    """
    with _SHELF.reading(folder, ARCHITECTURE) as values:
        model = Unloc(UnlocConfig.from_dict(values["model"]))
        load_weights(model, load_file(folder / "model.safetensors"))
        tower, settings = str(values["tower"]), dict(values["settings"])
    return Localizer(model.to(device).eval().requires_grad_(False), tower, settings)


_loaded = Once(read_localizer)
