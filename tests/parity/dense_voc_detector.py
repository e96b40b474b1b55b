"""The detector's golden files: `<root>/dense_voc/<kind>*.npz`, and parts of ours with a part's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .goldens import ROOT

FAMILY = "dense_voc"


def parametrize_files(metafunc: Any, kind: str) -> None:
    """Give a test every file whose name begins with `kind`; without any, None, on which it fails."""
    files: list[Path | None] = [*sorted((ROOT / FAMILY).glob(f"{kind}*.npz"))] or [None]
    metafunc.parametrize(kind, files, ids=[file.stem if file else "no-files" for file in files])


def read(file: Path | None) -> dict[str, Any]:
    """The arrays of a file; fails where there is none."""
    assert file is not None, f"no golden file under {ROOT / FAMILY}: nothing was compared"
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def below(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arrays whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def tensor(array: Any) -> Tensor:
    """Floats as float32, integers as int64."""
    return torch.from_numpy(np.array(array, np.int64 if array.dtype.kind in "iu" else np.float32))


def channels_first(array: Any) -> Tensor:
    """(B, h, w, C) -> (B, C, h, w)."""
    return tensor(array).movedim(-1, 1).contiguous()


def by_number(arrays: Mapping[str, Any], prefix: str) -> list[Any]:
    """Arrays named `<prefix><number>`, by their number."""
    found = {int(rest): array for rest, array in below(arrays, prefix).items() if rest.isdigit()}
    return [found[number] for number in sorted(found)]


def load(module: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Put the arrays `p:<path>` of a part into a module of ours; every parameter must get one and no array be left."""
    given = {path.replace("/", "."): array for path, array in below(arrays, "p:").items()}
    with torch.no_grad():
        for prefix, part in module.named_modules():
            for leaf, parameter in part.named_parameters(recurse=False):
                name = f"{prefix}.{leaf}" if prefix else leaf
                value = tensor(given.pop(_theirs(part, name)))
                if leaf == "weight" and isinstance(part, nn.ConvTranspose2d):
                    value = value.flip(0, 1).permute(2, 3, 0, 1)  # theirs is a convolution of the widened input
                elif leaf == "weight" and isinstance(part, nn.Conv2d):
                    value = value.permute(3, 2, 0, 1)
                elif leaf == "weight" and isinstance(part, nn.Linear):
                    value = value.T
                parameter.copy_(value.reshape(parameter.shape))
    assert not given, f"no parameter of {type(module).__name__} for {sorted(given)}"


def _theirs(part: nn.Module, name: str) -> str:
    stem, dot, leaf = name.rpartition(".")
    if leaf == "weight":
        leaf = "kernel" if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) else "scale"
    return f"{stem}{dot}{leaf}"


def assert_near(actual: Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal shapes; values within `tolerance`, absolute for small ones and relative for large ones; NaN where NaN."""
    assert tuple(actual.shape) == tuple(expected.shape)
    torch.testing.assert_close(actual.detach(), tensor(expected), atol=tolerance, rtol=tolerance, equal_nan=True)
