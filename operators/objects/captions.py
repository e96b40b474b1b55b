"""Captions of regions: what a captioner says when it sees the tokens of one object only.

A box is pooled from the tower's token grid by RoIAlign into a few tokens, its view. A track is told of from the mean of
the views of up to a few frames: the soft aggregation of Zhou et al., "Dense Video Object Captioning from Disjoint
Supervision" (2023), section 3.3, with equal weights. A captioner of whole pictures tells a little truer from that, on
the whole, than from views one after the other, of which it saw nothing in training, and reads a sixth of the tokens.
One that was trained on objects (`training/objects/regions.py`) reads them one after the other, the paper's hard
aggregation; its folder holds only how it differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..caption.load import CaptionerError
from ..model_folder import load_weights, save_weights
from ..packets import FloatArray
from .bank import spread
from .densevoc.roi_align import roi_align

if TYPE_CHECKING:
    from ..caption.captioner import CaptionModel

__all__ = ["RegionCaptioner", "load_region_captioner", "region_tokens", "save_region_captioner"]

_BASE, _SIZE, _VIEWS = "base", "size", "views"


def region_tokens(grid: FloatArray, boxes: FloatArray, size: int) -> FloatArray:
    """Pool boxes from a token grid: (N, size * size, D), bins row by row.

    Beyond the edge of the grid its outermost tokens go on: what is at the edge of the picture is no fainter.

    Args:
        grid: (h, w, D) tokens.
        boxes: (N, 4) x0 y0 x1 y1 as shares of the picture.
        size: bins along each side of a box.
    """
    height, width = grid.shape[:2]
    tokens = torch.from_numpy(np.array(grid, np.float32)).permute(2, 0, 1)[None]  # 1, D, h, w
    cells = torch.from_numpy(np.array(boxes, np.float32)) * torch.tensor([width, height] * 2)
    pooled: Tensor = roi_align([F.pad(tokens, (1, 1, 1, 1), mode="replicate")], cells[None] + 1, (1,), size)[0]
    return pooled.numpy()


class RegionCaptioner:
    """Describes objects from their views; it keeps no state between calls."""

    def __init__(self, captioner: CaptionModel, *, size: int = 4, views: int = 6, soft: bool = True) -> None:
        """Take a captioner of the tower's tokens.

        Args:
            captioner: reads at least `size * size` tokens, `views` times as many if not `soft`.
            size: bins along each side of a box.
            views: frames that a caption is made from.
            soft: read the mean of the views, not one after the other.
        """
        self.captioner, self.size, self.views, self.soft = captioner, size, views, soft

    def tokens(self, grid: FloatArray, boxes: FloatArray) -> FloatArray:
        """Views (N, R, D) of boxes (N, 4), shares of the picture, in one frame's tokens (h, w, D)."""
        return region_tokens(grid, boxes, self.size)

    def caption(self, tracks: Sequence[FloatArray]) -> list[tuple[str, float]]:
        """Text and score of each track's views (n, R, D), in the order of time; of more than `views`, some are read."""
        memories = [self._memory(spread(list(views), self.views)) for views in tracks]
        return [(texts[0].text, texts[0].probability) for texts in self.captioner.propose(memories)]

    def _memory(self, views: Sequence[FloatArray]) -> FloatArray:
        """What is read of views (R, D): tokens (R, D) or (n * R, D)."""
        together: FloatArray = np.mean(views, axis=0) if self.soft else np.concatenate(views)
        return together


# ---- folders


def load_region_captioner(name_or_folder: str | Path, device: str = "cpu") -> RegionCaptioner:
    """The captioner of regions in a folder of the user's; none of them comes with the package.

    A captioner of whole pictures, by the name of one that comes with the package or a folder, will do too: it reads
    regions as small pictures, and tells less of parts.

    Raises:
        CaptionerError: no such name or folder, or its files do not make a captioner.
    """
    from ..caption.load import captioner_names, load_captioner

    if str(name_or_folder) not in captioner_names() and _BASE in _config(folder := Path(name_or_folder)):
        return _further(folder, device)
    return RegionCaptioner(load_captioner(name_or_folder, device))


def save_region_captioner(folder: Path, decoder: Mapping[str, Tensor], base: str, *, size: int, views: int) -> None:
    """Write a folder that `load_region_captioner` reads: how a decoder differs from an embedded captioner's.

    Args:
        folder: made if it does not exist.
        decoder: its weights by name; a kernel that is tied to the words is left out.
        base: name of the captioner that it was trained from.
        size: bins along each side of a box.
        views: frames that a caption is made from.
    """
    from ..caption.difference import as_difference
    from ..caption.load import embedded_weights

    old = embedded_weights(base)
    changed = {name: weights for name, weights in decoder.items() if name in old and not _same(weights, old[name])}
    state = {k: v.half() if v.is_floating_point() else v for k, v in as_difference(changed, old).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(state, folder / "model.safetensors")
    values = {_BASE: base, _SIZE: size, _VIEWS: views}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _same(weights: Tensor, stored: Tensor) -> bool:
    """Whether weights are those that were stored in half precision."""
    return torch.equal(weights.half(), stored.half())


def _config(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return values if isinstance(values, dict) else {}
    except (OSError, ValueError):
        return {}  # whoever loads a captioner of whole pictures from the folder says what is wrong with it


@lru_cache
def _further(folder: Path, device: str) -> RegionCaptioner:
    """The captioner whose difference from its base a folder holds."""
    from safetensors.torch import load_file

    from ..caption.captioner import Captioner
    from ..caption.difference import with_difference
    from ..caption.git import GitDecoder
    from ..caption.load import embedded_weights, load_captioner

    values = _config(folder)
    base = values[_BASE]
    try:
        if lacking := [name for name in (_SIZE, _VIEWS) if name not in values]:
            raise ValueError(f"config.json is incomplete, it lacks {', '.join(lacking)}")
        size, views = int(values[_SIZE]), int(values[_VIEWS])
        known, old = load_captioner(base), embedded_weights(base)
        assert isinstance(known, Captioner)
        state = old | with_difference(load_file(folder / "model.safetensors"), old)
        decoder = GitDecoder(known.decoder.config)
        load_weights(decoder, state)
    except Exception as error:  # safetensors raises a type of its own, torch a RuntimeError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CaptionerError(f"captioner of regions {folder.name!r} cannot be loaded: {reason}") from error
    captioner = Captioner(decoder, known.vocabulary, known.memory_size, known.options)
    captioner.to(device)
    return RegionCaptioner(captioner, size=size, views=views, soft=False)
