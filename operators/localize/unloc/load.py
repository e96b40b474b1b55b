"""Localizers as folders: `config.json` (the model's configuration, its tower, settings) and `model.safetensors`."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from onlooker.operators.errors import OnlookerError
from onlooker.operators.model_folder import Shelf, save_weights

from .config import UnlocConfig
from .model import Unloc

ARCHITECTURE = "unloc"

_loaded: dict[tuple[str, str], Localizer] = {}
_lock = threading.Lock()


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
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "architecture": ARCHITECTURE,
        "tower": tower,
        "model": model.config.to_dict(),
        "settings": dict(extra or {}),
    }
    state = {name: weights.detach().cpu().to(dtype) for name, weights in model.named_parameters()}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_weights(state, folder / "model.safetensors")


def load_localizer(name_or_folder: str | Path, device: str = "cpu") -> Localizer:
    """The localizer of a name that comes with the package, or in a folder that `save_localizer` wrote.

    Callers of one process share one instance per place and device, so a folder that changes is read once.

    Raises:
        LocalizerError: no such name or folder, or its files do not make a localizer.
    """
    folder = _SHELF.folder(name_or_folder)
    key = (str(folder.resolve()), device)
    with _lock:
        if key not in _loaded:
            _loaded[key] = read_localizer(folder, device)
        return _loaded[key]


def read_localizer(folder: Path, device: str = "cpu") -> Localizer:
    """The localizer in a folder, read anew.

    Raises:
        LocalizerError: its files do not make a localizer.
    """
    _SHELF.require_files(folder)
    try:
        values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if values["architecture"] != ARCHITECTURE:
            raise ValueError(f"config.json says architecture {values['architecture']!r}, known is {ARCHITECTURE!r}")
        model = Unloc(UnlocConfig.from_dict(values["model"]))
        model.load_state_dict(load_file(folder / "model.safetensors"))  # copies into float32
        tower, settings = str(values["tower"]), dict(values["settings"])
    except KeyError as error:
        raise LocalizerError(f"localizer {folder.name!r} cannot be loaded: config.json lacks {error}") from error
    except Exception as error:  # safetensors raises a type of its own, torch a RuntimeError, json a ValueError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LocalizerError(f"localizer {folder.name!r} cannot be loaded: {reason}") from error
    return Localizer(model.to(device).eval().requires_grad_(False), tower, settings)
