"""Finds the cases of reference outputs: `<root>/<family>/<stem>.npz`, keys `case/name`, or a whole file one case.

The root is `ONLOOKER_GOLDENS` or the copy beside the tests. Cases are found by what lies there, so a folder with
other cases of the same kinds is tested without a change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(os.environ.get("ONLOOKER_GOLDENS") or Path(__file__).parents[1] / "goldens")

WHOLE = "whole"
"""Name of the one case of a file that is not split."""


@dataclass(frozen=True)
class Case:
    """One case: its arrays by name."""

    file: Path
    name: str
    arrays: dict[str, Any]

    def __str__(self) -> str:
        return self.file.stem if self.name == WHOLE else f"{self.file.stem}-{self.name}"

    def has(self, *names: str) -> bool:
        return all(name in self.arrays for name in names)

    def tensor(self, name: str) -> torch.Tensor:
        """An array as a tensor, integers as int64."""
        array = self.arrays[name]
        return torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array.copy())

    def number(self, name: str) -> Any:
        return self.arrays[name].item()

    def below(self, prefix: str) -> dict[str, Any]:
        """The arrays whose names start with `prefix`, without it."""
        return {name.removeprefix(prefix): a for name, a in self.arrays.items() if name.startswith(prefix)}


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a file by name."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def find_cases(family: str, stem: str, *needed: str) -> list[Case]:
    """All cases of the family's files whose stem starts with `stem` that hold the arrays `needed`."""
    cases = []
    for path in sorted((ROOT / family).glob(f"{stem}*.npz")):
        grouped: dict[str, dict[str, Any]] = {}
        for key, array in read_arrays(path).items():
            case, _, name = key.partition("/")
            grouped.setdefault(case, {})[name] = array
        cases += [Case(path, case, arrays) for case, arrays in grouped.items() if all(n in arrays for n in needed)]
    return cases


def find_files(family: str, stem: str, *needed: str) -> list[Case]:
    """The family's files whose stem starts with `stem` that hold the arrays `needed`, each one case."""
    files = [Case(path, WHOLE, read_arrays(path)) for path in sorted((ROOT / family).glob(f"{stem}*.npz"))]
    return [file for file in files if file.has(*needed)]


def parametrize(metafunc: Any, family: str, stem: str, *needed: str) -> None:
    """Give a test one `case` each; see `parametrize_with`."""
    parametrize_with(metafunc, "case", partial(find_cases, family, stem, *needed))


def parametrize_with(metafunc: Any, argument: str, find: Callable[[], Sequence[Case | None]]) -> None:
    """Give a test that has the argument what is found. If nothing is, there is one, None, on which the test fails."""
    if argument in metafunc.fixturenames:
        given = find() or [None]
        metafunc.parametrize(argument, given, ids=[str(case) if case else "no-cases" for case in given])


def require(case: Case | None, what: str) -> Case:
    """The case, or a failure that says that nothing was compared."""
    assert case is not None, f"no golden case for {what} under {ROOT}: nothing was compared"
    return case


def assert_close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 5e-5) -> None:
    """Equal shapes and values within `atol` (the bar an independent implementation reached)."""
    torch.testing.assert_close(actual.float(), expected.float(), atol=atol, rtol=0)
