"""Parameter trees from files: `.npz`, `.safetensors`, and the checkpoints that flax writes with msgpack.

Reading never runs anything that a file holds: pickles are recognised and refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file

from onlooker.operators.errors import OnlookerError

Array = npt.NDArray[Any]
Tree = Mapping[str, Array]
"""Arrays by their path, parts joined by "/"."""
Report = Callable[[float], None]
"""Is told which share of a file was read."""

_ROOTS = ("optimizer/target/params/", "optimizer/target/", "params/")
_TRAINING = {"opt_state", "state", "model_state"}
"""Parts of a training state beside the parameters, larger than these; they are skipped."""
_CHUNKED = "__msgpack_chunked_array__"
_NDARRAY = 1
"""Code of an array in flax's msgpack; its scalars and complex numbers (2, 3) are no parameters."""
_DTYPES = {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"}
_MANY, _LONG = 1 << 20, 1 << 16
"""No tree has as many entries, no name as many letters; more of them are the numbers of a damaged file."""
_AS_NPZ = "where JAX is at hand, save it by np.savez(FILE, **flax.traverse_util.flatten_dict(params, sep='/'))"
_WANTED = "give a .npz or .safetensors file of '/'-joined names, or a checkpoint of flax"


class ReferenceTreeError(OnlookerError):
    """A parameter tree cannot be read or does not fit the model; the message names the file or the arrays."""


def read_tree(path: str | Path, report: Report | None = None) -> dict[str, Array]:
    """The parameters in a file, by their path below `params/` or the like.

    Args:
        path: `.npz` or `.safetensors` with "/"-joined names, a flax checkpoint, or a folder of flax checkpoints
            (`checkpoint_1000`), of which the latest is read.
        report: is told how far it is.

    Returns:
        Arrays as they are stored; bfloat16, which NumPy does not know, as float32.

    Raises:
        ReferenceTreeError: no such file, or one that holds no such tree.
    """
    path = Path(path)
    if path.is_dir():
        path = _latest(path)
    try:
        tree = _reader(path)(path, report or (lambda share: None))
    except ReferenceTreeError:
        raise
    except Exception as error:  # damaged bytes raise of everything, in zipfile, safetensors and NumPy too
        reason = " ".join(str(error).split()) or "it is cut short or damaged"
        raise ReferenceTreeError(f"{path.name} is no parameter tree ({reason}): {_WANTED}") from error
    root = next((root for root in _ROOTS if any(name.startswith(root) for name in tree)), "")
    tree = {name.removeprefix(root): array for name, array in tree.items() if name.startswith(root)}
    for name, array in tree.items():
        if array.dtype.kind not in "fiu":
            raise ReferenceTreeError(f"{path.name} is no parameter tree ({name} holds no numbers): {_WANTED}")
    return tree


def _latest(folder: Path) -> Path:
    """The checkpoint of the last step in a folder, as flax names them."""
    numbers = ((re.fullmatch(r"checkpoint_(\d+)", path.name), path) for path in folder.iterdir())
    found = [(int(match[1]), path) for match, path in numbers if match]
    path = max(found)[1] if found else folder
    if path.is_dir():
        raise ReferenceTreeError(f"folder {folder.name} has no file checkpoint_N, and Orbax's are not read: {_AS_NPZ}")
    return path


def _reader(path: Path) -> Callable[[Path, Report], dict[str, Array]]:
    """What reads a file, by its first bytes; names of files lie more often."""
    with path.open("rb") as stream:
        head = stream.read(9)
    if head.startswith(b"PK"):
        return _read_npz
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return _read_safetensors
    if path.suffix in (".pkl", ".pickle") or (head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")):
        raise _pickle(path)
    if head and (0x80 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):  # a map of msgpack
        return _read_msgpack
    raise ValueError("unknown format" if head else "the file is empty")


def _pickle(path: Path) -> ReferenceTreeError:
    return ReferenceTreeError(
        f"{path.name} is no parameter tree but a pickle, which may run anything when it is opened and is never read: "
        f"{_AS_NPZ}"
    )


def _read_npz(path: Path, report: Report) -> dict[str, Array]:
    tree = {}
    with np.load(path, allow_pickle=False) as archive:
        if any(name.endswith(".pkl") for name in archive.files):  # what PyTorch saves is such an archive too
            raise _pickle(path)
        for count, name in enumerate(archive.files, 1):
            array = archive[name]
            # What NumPy makes of the bfloat16 of JAX, which it does not know.
            tree[name] = _widened(array) if array.dtype == np.dtype("V2") else array
            report(count / len(archive.files))
    return tree


def _read_safetensors(path: Path, report: Report) -> dict[str, Array]:
    tree: dict[str, Array] = {}
    for name, tensor in load_file(path).items():
        tree[name] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    report(1.0)
    return tree


def _read_msgpack(path: Path, report: Report) -> dict[str, Array]:
    try:
        import msgpack  # type: ignore[import-untyped]
    except ImportError as error:
        raise ReferenceTreeError(f"{path.name} is a checkpoint of flax: to read it, pip install msgpack") from error
    size = path.stat().st_size
    with path.open("rb") as stream:

        def decode(code: int, data: bytes) -> Array | None:
            report(stream.tell() / size)
            return _array(*msgpack.unpackb(data, raw=True)) if code == _NDARRAY else None

        unpacker = msgpack.Unpacker(
            stream, ext_hook=decode, max_buffer_size=0, max_array_len=_MANY, max_map_len=_MANY, max_str_len=_LONG
        )
        try:
            tree = dict(_parameters(unpacker))
        except msgpack.OutOfData as error:
            raise ValueError("it is cut short") from error
    return dict(_flat(tree))


def _parameters(unpacker: Any) -> Iterator[tuple[str, Any]]:
    """The entries of the outer map without what belongs to the training."""
    for _ in range(unpacker.read_map_header()):
        name = unpacker.unpack()
        if name in _TRAINING:
            unpacker.skip()
        elif name == "optimizer":  # of the older flax.optim: the parameters are its `target`
            yield name, dict(_parameters(unpacker))
        else:
            yield name, unpacker.unpack()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Array]]:
    """All arrays by their path; other leaves, as the number of a step, are left out."""
    for name, value in tree.items():
        if isinstance(value, dict) and _CHUNKED in value:
            yield prefix + name, _joined(value)
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, np.ndarray):
            yield prefix + name, value


def _joined(value: Mapping[str, Any]) -> Array:
    """An array that was too long for one piece."""
    chunks, shape = value.get("chunks"), value.get("shape")
    if not isinstance(chunks, dict) or not isinstance(shape, dict):
        raise ValueError("a chunked array without chunks")
    in_order = partial(sorted, key=int)
    return np.concatenate([chunks[i] for i in in_order(chunks)]).reshape([int(shape[i]) for i in in_order(shape)])


def _array(shape: Any, dtype: Any, data: Any) -> Array:
    """An array as flax stores it; names and bytes come raw."""
    name = dtype.decode("ascii", "replace")
    if name == "bfloat16":
        return _widened(np.frombuffer(data, "V2")).reshape(shape)
    if name not in _DTYPES:
        raise ValueError(f"arrays of type {name!r} are not read")
    return np.frombuffer(data, np.dtype(name).newbyteorder("<")).reshape(shape)


def _widened(array: Array) -> Array:
    """bfloat16 as float32, of which it is the upper half."""
    return (array.view("<u2").astype(np.uint32) << 16).view(np.float32)
