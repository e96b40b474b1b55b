"""The operators by name. A new operator is one new folder and one line here.

Modules are imported on first use only, so that naming an operator costs nothing.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from .contract import Operator, Source
from .errors import OnlookerError

__all__ = ["OPERATORS", "SOURCES", "UnknownNameError", "operator_class", "source_class", "suggest"]

SOURCES = {
    "decode": "onlooker.operators.decode.node:VideoSource",
    "live": "onlooker.operators.decode.live_node:LiveSource",
    "uniform": "onlooker.operators.decode.uniform_node:UniformSource",
}

OPERATORS = {
    "clip_tower": "onlooker.operators.tower.node:ClipTower",
    "clustering_memory": "onlooker.operators.memory.node:ClusteringMemory",
    "git_captioner": "onlooker.operators.caption.node:GitCaptioner",
    "dense_captioner": "onlooker.operators.caption.dense_node:DenseCaptioner",
    "paper_captioner": "onlooker.operators.caption.paper_node:PaperCaptioner",
    "query_localizer": "onlooker.operators.localize.node:QueryLocalizer",
    "moment_localizer": "onlooker.operators.localize.moment_node:MomentLocalizer",
    "hf_detector": "onlooker.operators.objects.transformers_node:HfDetector",
    "object_detector": "onlooker.operators.objects.detector_node:ObjectDetector",
    "object_tracker": "onlooker.operators.objects.tracker_node:ObjectTracker",
}


class UnknownNameError(OnlookerError):
    """A name that is not there; the message offers the nearest that is."""


def suggest(name: str, known: list[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}."


def _load(table: dict[str, str], what: str, name: str) -> Any:
    if name not in table:
        raise UnknownNameError(f"unknown {what} {name!r}; {suggest(name, list(table))}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def operator_class(name: str) -> type[Operator[Any]]:
    """The operator class registered under ``name``.

    Raises:
        UnknownNameError: there is none; the message names the nearest.
    """
    cls: type[Operator[Any]] = _load(OPERATORS, "operator", name)
    return cls


def source_class(name: str) -> type[Source[Any]]:
    """The source class registered under ``name``.

    Raises:
        UnknownNameError: there is none; the message names the nearest.
    """
    cls: type[Source[Any]] = _load(SOURCES, "source", name)
    return cls
