"""`onlooker convert` on the goldens' parameter trees: its folders write what the reference wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from onlooker.operators.caption.dense_config import SearchConfig
from onlooker.operators.caption.dense_load import load_video_captioner
from onlooker.operators.caption.paragraph import ParagraphCaptioner
from onlooker.operators.caption.vid2seq.convert import state_from_reference
from onlooker.operators.caption.vid2seq.decoding import decode_videos
from onlooker.operators.caption.vid2seq.load import build, load_vid2seq
from onlooker.operators.convert.read import read_tree
from onlooker.pipeline.cli.main import main

from .goldens import Case, parametrize, require

DECODED = re.compile(r"decode_(?P<method>greedy|beam(?P<beam>\d+))/text_tokens")


def pytest_generate_tests(metafunc: Any) -> None:
    stem = "model_git" if "git" in metafunc.function.__name__ else "model_vid2seq"
    parametrize(metafunc, "streaming_dvc", stem, "config")


def convert(case: Case, folder: Path, words: int | None = None) -> tuple[Path, dict[str, Any]]:
    """The folder that the command makes of a case, and the case's configuration."""
    values = dict(json.loads(str(case.arrays["config"])))
    (folder / "config.json").write_text(json.dumps(values))
    np.savez(folder / "tree.npz", **{f"params/{name}": array for name, array in case.below("params/").items()})
    command = ["convert", str(folder / "tree.npz"), str(folder / "out"), "--config", str(folder / "config.json")]
    if words is not None:
        (folder / "words.txt").write_text("".join(f"word{i}\n" for i in range(words)))
        command += ["--vocab", str(folder / "words.txt")]
    assert main(command) == 0
    return folder / "out", values


def searches(case: Case, values: dict[str, Any]) -> dict[str, SearchConfig]:
    """By the array that holds what was found."""
    alpha, runs = values.get("decode_brevity_penalty_alpha", 0.6), {}
    for name in case.arrays:
        if match := DECODED.fullmatch(name):
            runs[name] = SearchConfig(
                "greedy" if match["method"] == "greedy" else "beam", int(match["beam"] or 1), alpha
            )
    return runs


def test_git(case: Case | None, tmp_path: Path) -> None:
    case = require(case, "converted GIT models")
    values = json.loads(str(case.arrays["config"]))
    bins = values.get("num_bins", 100) if "num_dense_outputs" in values else 0
    out, values = convert(case, tmp_path, values.get("vocab_size", 30522) - bins)
    model, _ = load_video_captioner(out)
    images = case.tensor("images")
    if isinstance(model, ParagraphCaptioner):
        assert not bins and model.decode(images).tolist() == case.tensor("decoded").tolist()
        return
    assert bins
    tokens = model.encode(images)
    for name, search in searches(case, values).items():
        assert model.decode_tokens(tokens, search).tokens.tolist() == case.tensor(name).tolist(), name


def test_vid2seq(case: Case | None, tmp_path: Path) -> None:
    """bfloat16 texts hang on ties: there the folder is compared with the tree's own model only."""
    case = require(case, "converted Vid2Seq models")
    out, values = convert(case, tmp_path)
    model = load_vid2seq(out)
    direct = build(model.config, state_from_reference(read_tree(tmp_path / "tree.npz"), model.config)).eval()
    features = case.tensor("image_features")
    for name, search in searches(case, values).items():
        found = decode_videos(model, features, search).tokens.tolist()
        assert found == decode_videos(direct, features, search).tokens.tolist(), name
        if model.config.dtype == "float32":
            assert found == case.tensor(name).tolist(), name
