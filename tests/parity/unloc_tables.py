"""Finds the cases of UnLoc's tables: `<root>/unloc/<stem>.npz`, keys `<kind>/<case>/in/<name>` and `.../out/<name>`.

Some kinds have one case only, and no name for it.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onlooker.operators.localize.unloc.sampling import Anchors, Sampling, anchors

from .goldens import ROOT, Case, parametrize_with, read_arrays

FAMILY = "unloc"


def find_tables(stem: str, kind: str, *needed: str) -> list[Case]:
    """All cases of a kind in the family's files whose stem starts with `stem` that hold the arrays `needed`."""
    cases = []
    for path in sorted((ROOT / FAMILY).glob(f"{stem}*.npz")):
        grouped: dict[str, dict[str, Any]] = {}
        for key, array in read_arrays(path).items():
            match = re.fullmatch(rf"({kind}(?:/.+)?)/((?:in|out)/.+)", key) or re.fullmatch(rf"({kind})/(.+)", key)
            if match:
                grouped.setdefault(match[1], {})[match[2]] = array
        cases += [Case(path, name.replace("/", "-"), a) for name, a in grouped.items() if all(n in a for n in needed)]
    return cases


def parametrize_tables(metafunc: Any, stem: str, **kinds: str) -> None:
    """Give a test one case each for the argument named after its kind; without any, None, on which the test fails."""
    for argument, kind in kinds.items():
        parametrize_with(metafunc, argument, partial(find_tables, stem, kind))


def settings(case: Case, name: str) -> dict[str, Any]:
    """The JSON text `in/<name>` of a case, {} without one; "inf" is infinity."""
    text = case.arrays.get(f"in/{name}", case.arrays.get(name))
    return {} if text is None else json.loads(str(text).replace('"inf"', "Infinity"))


def part(case: Case, *prefixes: str) -> NDArray[Any] | None:
    """The array of the case whose name starts with one of the prefixes; of several the first."""
    for prefix in prefixes:
        for name, array in case.arrays.items():
            if name.startswith(prefix):
                return np.asarray(array)
    return None


def decoding_of(given: dict[str, Any], steps: int) -> tuple[Anchors, Sampling]:
    """Anchors and sampling of a case of post-processing with `steps` time steps; the reference's defaults."""
    pyramid = given.get("feature_pyramid_config") or {}
    frames = pyramid.get("num_features_level0", steps)
    found = anchors(frames, pyramid.get("num_levels", 1), pyramid.get("feature_pyramid_downsample_stride", 2))
    if not pyramid.get("normalize_displacements_by_downsample_stride", False):
        found = found._replace(strides=np.ones_like(found.strides))
    sampling = Sampling(
        given.get("sampling_strategy", "random"),
        frames,
        given["total_frames"],
        given["stride"],
        normalizer=given.get("displacement_normalizer", "duration"),
    )
    return found, sampling
