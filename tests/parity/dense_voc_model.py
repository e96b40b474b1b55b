"""Cases of the Dense VOC family: `<root>/dense_voc/<kind>*.npz`, whole files or cases `cN/`, as ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from onlooker.operators.objects.densevoc.association import Association, AssociationConfig
from onlooker.operators.objects.densevoc.convert import load_reference

from .goldens import ROOT, Case

FAMILY = "dense_voc"


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


def parametrize_cases(metafunc: Any, kind: str, *, numbered: bool) -> None:
    """Give a test one `case` each of all files of a kind; without any, None, on which it fails."""
    if "case" not in metafunc.fixturenames:
        return
    files = find_files(kind)
    cases: list[Case | None] = [case for file in files for case in (split(file) if numbered else [file])]
    metafunc.parametrize("case", cases or [None], ids=[str(case) if case else "no-cases" for case in cases or [None]])


def build_association(tree: dict[str, Any], heads: int) -> Association:
    """The tracker of a tree."""
    size, width = tree["tracking_layers/fc1/kernel"].shape
    model = Association(AssociationConfig(size, width, heads))
    load_reference(model, tree, "association")
    return model.eval()
