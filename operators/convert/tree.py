"""What the reference's parameter trees must hold: the arrays of a model, or some that tell its sizes; its options."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Container, Iterator, Mapping
from typing import Any

from onlooker.operators.convert.read import ReferenceTreeError

__all__ = ["array_shape", "check_tree", "count_layers", "leaves"]


def check_tree(wanted: Mapping[str, tuple[int, ...]], tree: Mapping[str, Any], growing: Container[str] = ()) -> None:
    """Refuse a tree whose arrays are not exactly those of a model.

    Args:
        wanted: shapes by path.
        tree: anything with a shape by path.
        growing: paths of arrays that may be smaller.

    Raises:
        ReferenceTreeError: one line about the first of all arrays that are missing, unknown or have another shape,
            with the nearest known name of an unknown one.
    """
    missing, unknown = wanted.keys() - tree.keys(), tree.keys() - wanted.keys()
    problems = [f"lacks {_some(missing)}"] if missing else []
    problems += [f"has unknown {_some(unknown, near=missing or wanted.keys())}"] if unknown else []
    for path in sorted(wanted.keys() & tree.keys()):
        given = tuple(tree[path].shape)
        fits = given == wanted[path]
        if path in growing and len(given) == len(wanted[path]):
            fits = all(few <= many for few, many in zip(given, wanted[path], strict=True))
        if not fits:
            problems.append(f"{path} is {given} instead of {wanted[path]}")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ReferenceTreeError(f"the parameter tree does not fit the model: {'; '.join(problems[:5])}{more}")


def _some(names: Collection[str], near: Collection[str] = ()) -> str:
    """A few of the names for a message, each with the nearest of those it may stand for."""
    told = []
    for name in sorted(names)[:3]:
        match = difflib.get_close_matches(name, near, n=1, cutoff=0.7)
        told.append(f"{name} (nearest known: {match[0]})" if match else name)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(told) + more


def array_shape(tree: Mapping[str, Any], path: str, axes: int, *, of: str) -> tuple[int, ...]:
    """Shape of an array that tells a size.

    Args:
        tree: anything with a shape by path.
        path: of the array.
        axes: how many it has.
        of: what the tree should be one of, for the message.

    Raises:
        ReferenceTreeError: it is not there, or has another number of axes.
    """
    shape = tuple(tree[path].shape) if path in tree else None
    if shape is None or len(shape) != axes:
        problem = f"lacks {path}" if shape is None else f"has {path} {shape} instead of {axes} axes"
        raise ReferenceTreeError(f"the parameter tree {problem}: give that of {of}")
    return shape


def count_layers(tree: Mapping[str, Any], stem: str, *, of: str) -> int:
    """How many layers there are: one more than the largest number behind `stem`.

    Raises:
        ReferenceTreeError: there is none.
    """
    numbers = [int(match[1]) for path in tree if (match := re.match(rf"{re.escape(stem)}(\d+)/", path))]
    if not numbers:
        raise ReferenceTreeError(f"the parameter tree lacks {stem}0: give that of {of}")
    return max(numbers) + 1


def leaves(options: Mapping[str, Any], stem: str = "") -> Iterator[tuple[str, Any]]:
    """Nested options one by one, under their full names: ``{"a": {"b": 1}}`` as ``("a.b", 1)``."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{stem}{name}.")
        else:
            yield f"{stem}{name}", value
