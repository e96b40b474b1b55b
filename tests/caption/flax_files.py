"""Checkpoints in the format of flax (msgpack), written without it."""

import msgpack
import numpy as np
import torch


def packed(tree, chunk=None):
    """The bytes of nested dictionaries of arrays; arrays of more than `chunk` numbers are cut into such pieces."""
    return msgpack.packb(_cut(tree, chunk) if chunk else tree, default=_array, strict_types=True)


def nested(flat):
    """Nested dictionaries of "/"-joined names."""
    tree = {}
    for name, array in flat.items():
        *parts, last = name.split("/")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = array
    return tree


def _array(value):
    if isinstance(value, torch.Tensor):  # NumPy knows no bfloat16
        assert value.dtype == torch.bfloat16
        return _ext(1, value.shape, "bfloat16", value.view(torch.uint16).numpy())
    return _ext(3 if isinstance(value, np.generic) else 1, value.shape, value.dtype.name, np.asarray(value))


def _ext(code, shape, name, array):
    return msgpack.ExtType(code, msgpack.packb((tuple(shape), name, array.tobytes()), use_bin_type=True))


def _cut(tree, chunk):
    if isinstance(tree, dict):
        return {name: _cut(value, chunk) for name, value in tree.items()}
    if not isinstance(tree, np.ndarray) or tree.size <= chunk:
        return tree
    flat = tree.reshape(-1)
    pieces = [flat[start : start + chunk] for start in range(0, flat.size, chunk)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(axis): length for axis, length in enumerate(tree.shape)},
        "chunks": {str(number): piece for number, piece in enumerate(pieces)},
    }
