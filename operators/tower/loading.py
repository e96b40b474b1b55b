"""Towers by name: the embedded ``tiny``, every open_clip model, and local folders or checkpoint files.

One code path serves them all: a name is resolved to what ``open_clip.create_model`` takes, the embedded tower
being a local folder inside this package.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from onlooker.operators.tower.calibration import Calibration
from onlooker.operators.tower.errors import TowerError, UnknownModelError
from onlooker.operators.tower.git import GIT_PREFIX, load_git_tower
from onlooker.operators.tower.quantized import dequantized, is_quantized
from onlooker.operators.tower.text import TextReader
from onlooker.operators.tower.tower import Tower
from onlooker.operators.tower.trunk import TRUNK_PREFIX, load_trunk_tower
from onlooker.operators.tower.vision import vision_reader

EMBEDDED = {"tiny": Path(__file__).parent / "weights" / "tiny"}
WEIGHTS_FILE = "open_clip_model.safetensors"
CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin")
Parts = Literal["both", "image", "text"]

_LOADED: dict[tuple[str, str, str], Tower] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True)
class _Source:
    """What open_clip is asked for.

    Attributes:
        model: its model name, schema included.
        pretrained: tag or checkpoint file, for a model of its own list.
        folder: the local folder, for one that is loaded from there.
        checkpoint: the one file of that folder to use, if it was named.
        overrides: replacements in the model's configuration.
    """

    model: str
    pretrained: str | None = None
    folder: Path | None = None
    checkpoint: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


def load_tower(name: str, pretrained: str | None = None, parts: Parts = "both", device: str = "cpu") -> Tower:
    """Return the tower ``name``, in float32 and eval mode; a second call returns the same object.

    Args:
        name: ``tiny`` (ships with the package, never touches the network); an open_clip model with its pretrained
            tag or checkpoint file, ``ViT-B-32:openai``; ``hf-hub:owner/name``; a folder with
            ``open_clip_config.json`` and weights, also as ``local-dir:FOLDER``; a checkpoint in such a folder;
            ``git:owner/name`` or ``git:FOLDER``, the image encoder of a GIT checkpoint of transformers; or
            ``trunk:FOLDER``, the trunk inside a dense captioner's folder.
        pretrained: the tag or checkpoint file, where ``name`` does not hold it.
        parts: ``image`` or ``text`` keeps one side only, which saves the other's memory.
        device: where the model runs; results come back on the CPU.

    Raises:
        UnknownModelError: no such model or tag; the message proposes the nearest.
        TowerError: files are missing or do not fit the model, or a download failed.
    """
    full = f"{name}:{pretrained}" if pretrained else name
    with _LOCK:
        for held in dict.fromkeys(("both", parts)):
            if (full, held, device) in _LOADED:
                return _LOADED[full, held, device]
        tower = _LOADED[full, parts, device] = _load(full, parts, torch.device(device))
        return tower


def known_towers() -> list[str]:
    """Return every name that needs no files of the user's: the embedded towers, then open_clip's models."""
    return [*EMBEDDED, *open_clip.list_models()]


def _load(full: str, parts: Parts, device: torch.device) -> Tower:
    if parts not in ("both", "image", "text"):
        raise TowerError(f"parts must be 'both', 'image' or 'text', got {parts!r}")
    if full.startswith(GIT_PREFIX):
        return load_git_tower(full, parts, device)
    if full.startswith(TRUNK_PREFIX):
        return load_trunk_tower(full, parts, device)
    source = _resolve(full)
    model = _create(full, source)
    preprocess = open_clip.get_model_preprocess_cfg(model)
    size = preprocess.get("size", getattr(model.visual, "image_size", 224))
    vision = text = calibration = None
    if parts != "text":
        visual = model.visual.to(device=device, memory_format=torch.channels_last)
        vision = vision_reader(visual)
    if parts != "image":
        model.visual = nn.Identity()
        text = TextReader(model.to(device), _tokenizer(full, source, model), device)
    if source.folder is not None and (source.folder / "calibration.safetensors").is_file():
        calibration = Calibration.load(source.folder / "calibration.safetensors")
    return Tower(
        name=full,
        image_size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        mean=preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN),
        std=preprocess.get("std", open_clip.OPENAI_DATASET_STD),
        vision=vision,
        text=text,
        calibration=calibration,
        device=device,
    )


def _resolve(full: str) -> _Source:
    """Turn a name into what open_clip takes, without touching the network."""
    if full in EMBEDDED:
        return _folder(EMBEDDED[full])
    if full.startswith("local-dir:"):
        return _folder(Path(full.removeprefix("local-dir:")))
    if full.startswith("hf-hub:"):
        return _Source(full)
    path = Path(full)
    if path.is_dir():
        return _folder(path)
    model, _, weights = full.partition(":")
    if model not in open_clip.list_models():
        if path.suffix in CHECKPOINTS or len(path.parts) > 1:
            return _checkpoint(path)
        raise UnknownModelError.nearest("tower", model, known_towers())
    return _Source(model, _weights(model, weights))


def _weights(model: str, weights: str) -> str:
    """Check a pretrained tag or checkpoint file of a model that open_clip knows."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not weights:
        named = ", ".join(f"{model}:{tag}" for tag in tags) or f"{model}:CHECKPOINT_FILE"
        raise TowerError(f"tower {model!r} needs weights: name them, as in {named}")
    if weights in tags:
        return weights
    if Path(weights).suffix in CHECKPOINTS or "/" in weights:
        if not Path(weights).is_file():
            raise TowerError(f"checkpoint {weights!r} of tower {model!r} does not exist: check the path")
        return weights
    raise UnknownModelError.nearest(f"pretrained tag of tower {model!r}", weights, tags)


def _checkpoint(path: Path) -> _Source:
    """A bare checkpoint file: its architecture stands in the folder it lies in."""
    if not path.is_file():
        raise TowerError(f"tower {str(path)!r}: no such file or folder, and no model of this name")
    if not (path.parent / "open_clip_config.json").is_file():
        raise TowerError(
            f"checkpoint {path.name!r} does not say which model it is: name it as MODEL:FILE (ViT-B-32:{path.name}) "
            "or put its open_clip_config.json beside it"
        )
    return replace(_folder(path.parent), checkpoint=path)


def _folder(folder: Path) -> _Source:
    """A folder with ``open_clip_config.json`` and weights, as open_clip saves them."""
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise TowerError(f"tower folder {str(folder)!r} has no open_clip_config.json: is it the right folder?")
    if not any(file.suffix in CHECKPOINTS for file in folder.iterdir() if file.stem != "calibration"):
        raise TowerError(f"tower folder {str(folder)!r} has no weights ({', '.join(CHECKPOINTS)})")
    text = json.loads(config.read_text(encoding="utf-8")).get("model_cfg", {}).get("text_cfg", {})
    overrides: dict[str, Any] = {}
    if "hf_model_name" in text and (folder / "config.json").is_file():
        # The encoder's layout lies in the folder itself, as its tokenizer does, so nothing is looked up by name.
        overrides["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    return _Source(f"local-dir:{folder}", folder=folder, overrides=overrides)


def _create(full: str, source: _Source) -> Any:
    try:
        small = _quantized_file(source)
        if small is not None:
            with _unwarned():
                model = open_clip.create_model(
                    source.model, load_weights=False, pretrained_text=False, **source.overrides
                )
            model.load_state_dict(dequantized(load_file(small)))  # copies into float32
            return model.eval().requires_grad_(False)
        model = open_clip.create_model(
            source.model, pretrained=source.pretrained, require_pretrained=True, **source.overrides
        )
        if source.checkpoint is not None:
            open_clip.load_checkpoint(model, str(source.checkpoint))
    except (RuntimeError, OSError, ValueError, SafetensorError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:3]) or type(error).__name__
        raise TowerError(f"tower {full!r} could not be loaded: {reason}") from error
    return model.eval().requires_grad_(False)


def _quantized_file(source: _Source) -> Path | None:
    """The weights of a folder that keeps its word vectors in eight bits, which open_clip itself could not read."""
    path = source.checkpoint or (source.folder and source.folder / WEIGHTS_FILE)
    if path is None or path.suffix != ".safetensors" or not path.is_file():
        return None
    with safe_open(path, "pt") as weights:
        return path if is_quantized(weights.keys()) else None


@contextmanager
def _unwarned() -> Iterator[None]:
    """Keep to oneself that a model has no weights yet: they follow. open_clip tells it by the root logger."""

    def passes(record: logging.LogRecord) -> bool:
        return "initialized" not in record.getMessage()

    logging.getLogger().addFilter(passes)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(passes)


def _tokenizer(full: str, source: _Source, model: Any) -> Any:
    """Return the model's tokenizer.

    Raises:
        TowerError: it is missing, or came up with an empty vocabulary, which transformers does without a word when
            a vocabulary file is absent.
    """
    try:
        tokenizer = open_clip.get_tokenizer(source.model)
    except (OSError, ValueError) as error:
        raise TowerError(f"the tokenizer of tower {full!r} could not be loaded: {error}") from error
    hugging_face = getattr(tokenizer, "tokenizer", None)
    vocabulary = int(getattr(model, "vocab_size", 0))
    if hugging_face is not None and vocabulary and len(hugging_face) < vocabulary // 2:
        raise TowerError(
            f"the tokenizer of tower {full!r} knows {len(hugging_face)} of {vocabulary} words: "
            "its vocabulary file is missing"
        )
    return tokenizer
