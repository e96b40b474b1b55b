"""UnLoc's models: `<root>/unloc/model_*.npz`, one model a file, as ours with its weights and inputs."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from onlooker.operators.localize.unloc.convert import load_reference
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.reference import unloc_config

from .goldens import Case, find_files, parametrize_with

FAMILY = "unloc"


def find_models(*needed: str) -> list[Case]:
    """All models that hold the arrays `needed`."""
    return find_files(FAMILY, "model_", *needed)


def parametrize_models(metafunc: Any) -> None:
    """Give a test one model each; without any, None, on which it fails."""
    parametrize_with(metafunc, "case", find_models)


def options(case: Case) -> dict[str, Any]:
    """The reference's configuration."""
    return dict(json.loads(str(case.arrays["config_json"])))


def build(case: Case) -> Unloc:
    """The case's model with the case's weights; the frames it reads are those of its input."""
    tree = case.below("param/")
    model = Unloc(unloc_config(tree, options(case), {"num_frames": frames(case).shape[1]}).config)
    load_reference(model, tree)
    return model.eval()


def frames(case: Case) -> Tensor:
    """(B, T, H, W, 3), or features (B, T, W)."""
    return case.tensor("input/rgb")


def mask(case: Case) -> Tensor | None:
    """(B, N)."""
    return case.tensor("input/input_mask").bool() if case.has("input/input_mask") else None


def texts(case: Case) -> tuple[Tensor, Tensor | None]:
    """Ids (n, length) and their mask, or features (n, W): of all captions, or of the classes."""
    for name in ("caption", "class_names", "video_title"):
        found = case.below(f"input/{name}/") or {"": case.arrays.get(f"input/{name}")}
        flat = {key: _rows(array, name) for key, array in found.items() if array is not None}
        if "input_word_ids" in flat:
            return flat["input_word_ids"].long(), flat["input_mask"].bool()
        if "" in flat:
            return flat[""], None
    raise AssertionError(f"{case} holds no texts")


def _rows(array: Any, name: str) -> Tensor:
    """Captions of all videos one after another; classes are told again for every video."""
    return torch.from_numpy(array[0] if name == "class_names" else array.reshape(-1, array.shape[-1]))
