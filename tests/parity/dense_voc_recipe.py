"""Parameters by recipe: what the goldens of whole models are built from instead of storing every weight.

A value depends on nothing but its path in the reference's tree, its shape and a seed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def recipe_value(path: str, shape: tuple[int, ...], seed: int) -> Array:
    """The array at a path of the tree, parts joined by "/"."""
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    normal = np.random.RandomState(int.from_bytes(digest[:4], "little")).standard_normal(shape).astype(np.float32)
    leaf = path.rpartition("/")[2]
    if leaf == "kernel":
        return np.asarray(normal / np.float32(math.sqrt(math.prod(shape[:-1]))), np.float32)
    if leaf == "scale":
        return np.asarray(1 + np.float32(0.1) * normal, np.float32)
    factor = 0.5 if leaf in ("embedding", "output_tokens.weight") else 0.1
    return np.asarray(np.float32(factor) * normal, np.float32)


def recipe_tree(arrays: Mapping[str, Any]) -> dict[str, Array]:
    """The tree that a golden file describes with `param_names`, `param_shapes` and `recipe_seed`.

    `override:` arrays replace values of the recipe, and a `tracking_fc_kernel_factor` scales the kernels of the
    association's first layers, whose biases then are 0.

    Raises:
        AssertionError: the stored statistics of the parameters do not fit.
    """
    seed = int(arrays["recipe_seed"])
    factor = arrays.get("tracking_fc_kernel_factor")
    tree = {}
    for name, told in zip(arrays["param_names"], arrays["param_shapes"], strict=True):
        path, shape = str(name), _shape(str(told))
        value = recipe_value(path, shape, seed)
        if factor is not None and path.startswith("tracking_layers/fc"):
            value = value * np.float32(factor) if path.endswith("/kernel") else np.zeros_like(value)
        override = arrays.get(f"override:{path}")
        tree[path] = value if override is None else np.asarray(override, np.float32).reshape(shape)
    _check(tree, arrays)
    return tree


def _shape(told: str) -> tuple[int, ...]:
    """From "3x3x8x32"."""
    return tuple(int(side) for side in told.split("x") if side)


def _check(tree: Mapping[str, Array], arrays: Mapping[str, Any]) -> None:
    """Sum, sum of magnitudes, first and last value of every parameter."""
    for name, stats in zip(arrays["param_names"], arrays["param_stats"], strict=True):
        value = tree[str(name)].astype(np.float64).reshape(-1)
        own = [value.sum(), np.abs(value).sum(), value[0], value[-1]]
        np.testing.assert_allclose(own, stats, rtol=1e-4, atol=1e-4, err_msg=f"the recipe's {name}")
