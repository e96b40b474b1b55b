"""`onlooker convert` on the trees of UnLoc's goldens: its folders give the reference's logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onlooker.operators.localize.unloc.load import load_localizer
from onlooker.pipeline.cli.main import main

from ..caption.flax_files import nested, packed
from .goldens import Case, assert_close, require
from .unloc import build, frames, mask, options, parametrize_models, texts


def pytest_generate_tests(metafunc: Any) -> None:
    parametrize_models(metafunc)


def convert(case: Case, folder: Path, source: Path, *more: str) -> Path:
    (folder / "config.json").write_text(json.dumps(options(case)))
    count = frames(case).shape[1]
    told = ["--config", str(folder / "config.json"), "--config", f"num_frames={count}"]
    assert main(["convert", str(source), str(folder / "out"), *told, *more]) == 0
    return folder / "out"


def test_arrays_in_a_file(case: Case | None, tmp_path: Path, capsys: Any) -> None:
    case = require(case, "UnLoc's models")
    np.savez(tmp_path / "tree.npz", **case.below("param/"))
    out = convert(case, tmp_path, tmp_path / "tree.npz")
    said = capsys.readouterr().out
    assert said.startswith("unloc: ") and f"videos, {frames(case).shape[1]}, height" in said
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    loaded = load_localizer(out)
    ids, words = texts(case)
    assert loaded.model.config == build(case).config
    with torch.inference_mode():
        assert_close(loaded.model(frames(case), ids, mask(case), words), case.tensor("out/logits"), 1e-4)


def test_a_checkpoint_of_flax(case: Case | None, tmp_path: Path) -> None:
    case = require(case, "UnLoc's models")
    tree = case.below("param/")
    state = {"params": nested(tree), "opt_state": {"0": {"trace": nested(tree)}}, "global_step": np.int32(7)}
    (tmp_path / "checkpoint_7").write_bytes(packed(state))
    out = convert(case, tmp_path, tmp_path / "checkpoint_7", "--dtype", "float16")
    halved = [weights.half().float() for weights in build(case).parameters()]
    assert all(torch.equal(a, b) for a, b in zip(halved, load_localizer(out).model.parameters(), strict=True))
