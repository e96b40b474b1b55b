"""Captioners by name or folder, each loaded once per process."""

from __future__ import annotations

import difflib
import json
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..errors import OnlookerError
from .captioner import Captioner, DecodeOptions
from .git import GitConfig, GitDecoder
from .wordpiece import WordPiece

_WEIGHTS = Path(__file__).parent / "weights"
_FILES = ("config.json", "model.safetensors", "vocab.txt")

_loaded: dict[tuple[Path, str], Captioner] = {}
_lock = threading.Lock()


class CaptionerError(OnlookerError):
    """A captioner cannot be loaded; the message names the value and what to do."""


def captioner_names() -> list[str]:
    """Names of the captioners that come with the package."""
    return sorted(path.parent.name for path in _WEIGHTS.glob("*/config.json"))


def load_captioner(name_or_folder: str | Path, device: str = "cpu") -> Captioner:
    """The captioner `name_or_folder`: a name that comes with the package, or a folder.

    A folder holds `config.json` (decoder sizes, memory size, decoding options), `model.safetensors` and `vocab.txt`.
    Callers of one process share one instance per device.

    Raises:
        CaptionerError: no such name or folder, or the folder's files do not make a captioner.
    """
    folder = _folder(name_or_folder).resolve()
    with _lock:
        key = (folder, device)
        if key not in _loaded:
            _loaded[key] = _load(folder)
            _loaded[key].decoder.to(device)
        return _loaded[key]


def _folder(name_or_folder: str | Path) -> Path:
    name = str(name_or_folder)
    if name in captioner_names():
        return _WEIGHTS / name
    folder = Path(name_or_folder)
    if not folder.is_dir():
        near = difflib.get_close_matches(name, captioner_names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(captioner_names())}, or a folder"
        raise CaptionerError(f"unknown captioner {name!r}: {hint}")
    return folder


def _load(folder: Path) -> Captioner:
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise CaptionerError(f"folder {folder.name!r} is not a captioner: it lacks {', '.join(missing)}")
    try:
        values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        decoder = GitDecoder(GitConfig(**values["decoder"]))
        options = DecodeOptions(**values["decoding"])
        memory_size = int(values["memory_size"])
        state = {key: tensor.to(torch.float32) for key, tensor in load_file(folder / "model.safetensors").items()}
        if decoder.config.tie_word_embeddings:
            state["output.weight"] = state["words.weight"]
        decoder.load_state_dict(state)
        return Captioner(decoder, WordPiece.from_file(folder / "vocab.txt"), memory_size, options)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CaptionerError(f"captioner {folder.name!r} cannot be loaded: {error}") from error
