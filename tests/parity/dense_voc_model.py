"""Cases of the Dense VOC family: `<root>/dense_voc/<kind>*.npz`, whole files or cases `cN/`, as ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from onlooker.operators.caption.git import GitConfig, GitDecoder
from onlooker.operators.convert.tree import count_layers
from onlooker.operators.objects.densevoc.association import Association, AssociationConfig
from onlooker.operators.objects.densevoc.convert import load_reference

from .goldens import ROOT, Case

FAMILY = "dense_voc"
DECODER = "roi_heads.text_decoder.textual/"


def find_files(kind: str) -> list[Case]:
    """Every file whose stem begins with `kind`, each one case."""
    cases = []
    for path in sorted((ROOT / FAMILY).glob(f"{kind}*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            cases.append(Case(path, "whole", {name: archive[name] for name in archive.files}))
    return cases


def split(file: Case) -> list[Case]:
    """The cases `cN/` of a file; as many as it says it holds."""
    names = sorted({name.partition("/")[0] for name in file.arrays if "/" in name and not name.startswith("p:")})
    cases = [Case(file.file, name, file.below(f"{name}/")) for name in names]
    assert len(cases) == int(file.number("num_cases")), f"{file} holds {names}"
    return cases


def parametrize_files(metafunc: Any, *kinds: str) -> None:
    """Give a test one `case` for each file of the kinds; None, on which it fails, for a kind without any."""
    if "case" in metafunc.fixturenames:
        cases: list[Case | None] = [case for kind in kinds for case in (find_files(kind) or [None])]
        metafunc.parametrize("case", cases, ids=[case.file.stem if case else "no-cases" for case in cases])


def build_association(tree: dict[str, Any], heads: int) -> Association:
    """The tracker of a tree."""
    size, width = tree["tracking_layers/fc1/kernel"].shape
    model = Association(AssociationConfig(size, width, heads))
    load_reference(model, tree, "association")
    return model.eval()


def build_decoder(tree: dict[str, Any], heads: int, begin: int, end: int) -> GitDecoder:
    """The text decoder of a tree, whose names may lack that of the decoder."""
    if not any(name.startswith(DECODER) for name in tree):
        tree = {DECODER + name: array for name, array in tree.items()}
    vocabulary, width = tree[f"{DECODER}embedding/words/embedding"].shape
    config = GitConfig(
        vocab_size=vocabulary,
        visual_width=tree[f"{DECODER}object_feature_projection.0/kernel"].shape[0],
        hidden_size=width,
        num_heads=heads,
        num_layers=count_layers(tree, f"{DECODER}transformer/encoder/layer.", of="a text decoder"),
        ffn_size=tree[f"{DECODER}transformer/encoder/layer.0/intermediate/dense/bias"].shape[0],
        max_positions=tree[f"{DECODER}embedding/positions/embedding"].shape[0],
        begin_token=begin,
        end_token=end,
    )
    decoder = GitDecoder(config)
    load_reference(decoder, tree, "captioner")
    return decoder.eval()
