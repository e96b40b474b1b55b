"""Parameter trees in files of all kinds, and files that are none."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from onlooker.operators.convert.read import ReferenceTreeError, read_tree

from .flax_files import nested, packed

TREE = {
    "textual/embedding/words/embedding": np.arange(24, dtype=np.float32).reshape(6, 4),
    "textual/transformer/encoder/layer.0/output/dense/bias": np.linspace(-1, 1, 4, dtype=np.float32),
}
ADAM = {"0": {"mu": nested(TREE), "nu": nested(TREE)}, "1": {"count": np.int32(7)}}


def same(tree, expected=TREE):
    assert tree.keys() == expected.keys()
    for name, array in expected.items():
        assert tree[name].dtype == array.dtype and np.array_equal(tree[name], array), name


@pytest.mark.parametrize(
    "state",
    [
        nested(TREE),
        {"params": nested(TREE)},
        {"opt_state": ADAM, "params": nested(TREE), "global_step": np.int64(9), "rng": np.zeros(2, np.uint32)},
        {"optimizer": {"state": ADAM, "target": nested(TREE)}, "step": 9, "metadata": None},
        {"optimizer": {"target": {"params": nested(TREE)}, "state": ADAM}},
    ],
)  # fmt: skip
def test_checkpoints_of_flax(tmp_path, state):
    (tmp_path / "checkpoint_9").write_bytes(packed(state))
    same(read_tree(tmp_path / "checkpoint_9"))


def test_arrays_in_pieces_come_in_their_order(tmp_path):
    tree = {"a/kernel": np.arange(48, dtype=np.float32).reshape(2, 24)}
    (tmp_path / "long").write_bytes(packed({"params": nested(tree)}, chunk=4))
    same(read_tree(tmp_path / "long"), tree)


def test_bfloat16_becomes_float32(tmp_path):
    values = torch.tensor([[1.5, -2.75], [3e38, 1e-30]], dtype=torch.bfloat16)
    expected = {"a/kernel": values.float().numpy()}
    (tmp_path / "checkpoint_1").write_bytes(packed({"params": {"a": {"kernel": values}}}))
    same(read_tree(tmp_path / "checkpoint_1"), expected)
    save_file({"a/kernel": values}, tmp_path / "tree.safetensors")
    same(read_tree(tmp_path / "tree.safetensors"), expected)
    np.savez(tmp_path / "tree.npz", **{"a/kernel": values.view(torch.uint16).numpy().view("V2")})
    same(read_tree(tmp_path / "tree.npz"), expected)


def test_the_latest_checkpoint_of_a_folder_is_read(tmp_path):
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint_{step}").write_bytes(packed({"params": {"a": np.full(2, step, np.float32)}}))
    assert read_tree(tmp_path)["a"].tolist() == [10, 10]


def test_progress_is_told(tmp_path):
    np.savez(tmp_path / "tree.npz", **TREE)
    (tmp_path / "checkpoint_1").write_bytes(packed(nested(TREE)))
    for name in ("tree.npz", "checkpoint_1"):
        told = []
        read_tree(tmp_path / name, told.append)
        assert told == sorted(told) and told[-1] == 1.0


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["pickle", "torch", "npz"])
def test_pickles_are_refused_unopened(tmp_path, form):
    sprung, path = tmp_path / "sprung", tmp_path / "checkpoint_1"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"params": Trap(sprung)}))
    elif form == "torch":
        torch.save({"params": Trap(sprung)}, path)
    else:
        path = tmp_path / "tree.npz"
        np.savez(path, **{"a/kernel": np.array([Trap(sprung)], dtype=object)})
    with pytest.raises(ReferenceTreeError, match="pickle") as caught:
        read_tree(path)
    assert "\n" not in str(caught.value) and not sprung.exists()
    if form == "pickle":  # the trap works
        pickle.loads(path.read_bytes())
        assert sprung.exists()


@pytest.mark.parametrize("kind", ["npz", "safetensors", "msgpack"])
def test_files_that_are_cut_short(tmp_path, kind):
    path = tmp_path / f"tree.{kind}"
    if kind == "npz":
        np.savez(path, **TREE)
    elif kind == "safetensors":
        save_file({name: torch.from_numpy(array) for name, array in TREE.items()}, path)
    else:
        path.write_bytes(packed({"params": nested(TREE)}))
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ReferenceTreeError, match="is no parameter tree") as caught:
            read_tree(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    same(read_tree(path))


DAMAGED = {
    "text": b"just words",
    "huge map": b"\xdf\xff\xff\xff\xff",
    "huge array": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "object array": b"\x81\xa1a" + b"\xc7\x0b\x01" + b"\x93\x91\x01\xa6object\xc0",
    "not three": b"\x81\xa1a\xd4\x01\x90",
    "wrong shape": b"\x81\xa1a" + b"\xc7\x11\x01" + b"\x93\x91\x07\xa7float32\xc4\x04\0\0\0\0",
}


@pytest.mark.parametrize("name", list(DAMAGED))
def test_damaged_files_are_one_clear_error(tmp_path, name):
    (tmp_path / "checkpoint_1").write_bytes(DAMAGED[name])
    with pytest.raises(ReferenceTreeError, match="checkpoint_1 is no parameter tree") as caught:
        read_tree(tmp_path / "checkpoint_1")
    assert "\n" not in str(caught.value)


def test_folders_without_a_checkpoint_are_told(tmp_path):
    with pytest.raises(ReferenceTreeError, match="has no file checkpoint_N"):
        read_tree(tmp_path)
    (tmp_path / "checkpoint_5").mkdir()
    with pytest.raises(ReferenceTreeError, match="Orbax"):
        read_tree(tmp_path)


def test_arrays_that_are_no_numbers_are_told(tmp_path):
    np.savez(tmp_path / "tree.npz", **{"params/a": np.array("text")})
    with pytest.raises(ReferenceTreeError, match="a holds no numbers"):
        read_tree(tmp_path / "tree.npz")
