"""Localizers as folders: `config.json` (the model's configuration, its tower, settings) and `model.safetensors`."""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from onlooker.operators.errors import OnlookerError

from .config import UnlocConfig
from .model import Unloc

FILES = ("config.json", "model.safetensors")
ARCHITECTURE = "unloc"
_WEIGHTS = Path(__file__).parents[1] / "weights"

_loaded: dict[tuple[str, str], Localizer] = {}
_lock = threading.Lock()


class LocalizerError(OnlookerError):
    """A localizer cannot be loaded; the message names the value and what to do."""


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
    return sorted(path.parent.name for path in _WEIGHTS.glob("*/config.json"))


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
    state = {name: weights.detach().cpu().to(dtype).contiguous() for name, weights in model.named_parameters()}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_file(state, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone, which a wheel would carry over


def load_localizer(name_or_folder: str | Path, device: str = "cpu") -> Localizer:
    """The localizer of a name that comes with the package, or in a folder that `save_localizer` wrote.

    Callers of one process share one instance per place and device, so a folder that changes is read once.

    Raises:
        LocalizerError: no such name or folder, or its files do not make a localizer.
    """
    folder = _folder(name_or_folder)
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
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise LocalizerError(f"folder {folder.name!r} is not a localizer: it lacks {', '.join(missing)}")
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


def _folder(name_or_folder: str | Path) -> Path:
    name = str(name_or_folder)
    if name in localizer_names():
        return _WEIGHTS / name
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    near = difflib.get_close_matches(name, localizer_names(), n=1, cutoff=0.5)
    known = f"known: {', '.join(localizer_names())}; or" if localizer_names() else "none comes with this package;"
    meant = f"did you mean {near[0]!r}? Or" if near else known
    raise LocalizerError(f"no localizer {name!r}: {meant} give a folder with {' and '.join(FILES)}.")
