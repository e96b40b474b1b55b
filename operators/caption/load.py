"""Captioners by name or folder, each loaded once per process."""

from __future__ import annotations

import difflib
import json
import re
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import OnlookerError
from ..model_folder import VOCABULARY, Shelf, load_weights, read_words
from .captioner import Captioner, CaptionModel, DecodeOptions
from .git import GitConfig, GitDecoder
from .wordpiece import WordPiece

FILES = ("config.json", "model.safetensors", VOCABULARY)

# What a name on the Hugging Face hub looks like. A path that does not exist looks the same if it has two parts.
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

_loaded: dict[tuple[str, str], CaptionModel] = {}
_lock = threading.Lock()


class CaptionerError(OnlookerError):
    """A captioner cannot be loaded; the message names the value and what to do."""


_SHELF = Shelf(Path(__file__).parent / "weights", "captioner", CaptionerError, FILES)


def captioner_names() -> list[str]:
    """Names of the captioners that come with the package."""
    return _SHELF.names()


def load_captioner(name_or_folder: str | Path, device: str = "cpu") -> CaptionModel:
    """The captioner `name_or_folder`: a name that comes with the package, a folder, or GIT on the Hugging Face hub.

    A folder of ours holds `config.json` (decoder sizes, memory size, decoding options), `model.safetensors` and
    `vocab.txt`; a folder that transformers saved from a `GitForCausalLM` with its processor will also do, and so will
    a name as `microsoft/git-base`. Callers of one process share one instance per device.

    Raises:
        CaptionerError: no such name or folder, or the files do not make a captioner.
    """
    from .huggingface import is_transformers_folder, load_git

    folder = _folder(name_or_folder)
    place = str(folder.resolve()) if folder else str(name_or_folder)
    with _lock:
        key = (place, device)
        if key not in _loaded:
            _loaded[key] = load_git(place) if folder is None or is_transformers_folder(folder) else _load(folder)
            _loaded[key].to(device)
        return _loaded[key]


def embedded_weights(name: str) -> dict[str, Tensor]:
    """The decoder's weights of a captioner that comes with the package, float32, a tied kernel told once.

    Raises:
        CaptionerError: no captioner of that name comes with the package.
    """
    if name not in captioner_names():
        raise _unknown(name, ", ".join(captioner_names()))
    return _stored(_SHELF.place / name)


def _folder(name_or_folder: str | Path) -> Path | None:
    """The folder of a captioner; None for a name on the hub."""
    name = str(name_or_folder)
    folder = _SHELF.look_up(name)
    if folder is not None:
        return folder
    if _HUB_NAME.fullmatch(name) and not name.startswith("."):
        return None
    known = f"{', '.join(captioner_names())}, a folder, or a name on the Hugging Face hub as microsoft/git-base"
    raise _unknown(name, known)


def _unknown(name: str, known: str) -> CaptionerError:
    near = difflib.get_close_matches(name, captioner_names(), n=1, cutoff=0.5)
    return CaptionerError(f"unknown captioner {name!r}: {f'did you mean {near[0]!r}?' if near else f'known: {known}'}")


def _load(folder: Path) -> Captioner:
    _SHELF.require_files(folder)
    try:
        values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        decoder = GitDecoder(GitConfig(**values["decoder"]))
        options = DecodeOptions(**values["decoding"])
        memory_size = int(values["memory_size"])
        load_weights(decoder, _stored(folder))
        return Captioner(decoder, WordPiece(read_words(folder)), memory_size, options)
    except Exception as error:  # safetensors raises a type of its own, torch a RuntimeError, json a ValueError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CaptionerError(f"captioner {folder.name!r} cannot be loaded: {reason}") from error


def _stored(folder: Path) -> dict[str, Tensor]:
    return {name: weights.to(torch.float32) for name, weights in load_file(folder / "model.safetensors").items()}
