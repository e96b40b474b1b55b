"""Graphs made of the parts, and what to compare of their runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from onlooker.operators import registry
from onlooker.operators.events import Event
from onlooker.pipeline.config import GraphSpec
from onlooker.pipeline.graph import Edge, Graph, build_graph
from onlooker.pipeline.runtime.batch import SourceSpec
from onlooker.pipeline.runtime.local import LocalRunner
from onlooker.pipeline.session import Runner, Session
from onlooker.pipeline.sinks.base import Sink

from .parts import OPERATOR_PARTS, SOURCE_PARTS


@contextmanager
def registered_parts() -> Iterator[None]:
    """The parts can be used by name."""
    with pytest.MonkeyPatch.context() as patch:
        for name, where in SOURCE_PARTS.items():
            patch.setitem(registry.SOURCES, name, where)
        for name, where in OPERATOR_PARTS.items():
            patch.setitem(registry.OPERATORS, name, where)
        yield


def counter_graph(
    *,
    source: dict[str, Any] | None = None,
    mean: dict[str, Any] | None = None,
    teller: dict[str, Any] | None = None,
    stages: dict[str, Any] | None = None,
    runtime: dict[str, Any] | None = None,
    teller_stage: str = "models",
) -> Graph:
    """counter -> mean -> teller; reserves no CPUs unless ``stages`` says so."""
    placement: dict[str, Any] = {name: {"num_cpus": 0} for name in {"decode", "models", teller_stage}}
    for name, spec in (stages or {}).items():
        placement[name] = placement.get(name, {}) | spec
    document = {
        "name": "counters",
        "nodes": {
            "decode": {"use": "counter", "stage": "decode", "config": source or {}},
            "mean": {"use": "mean", "inputs": {"frames": "decode.frames"}, "config": mean or {}},
            "teller": {
                "use": "teller",
                "inputs": {"mean": "mean.mean"},
                "config": teller or {},
                "stage": teller_stage,
            },
        },
        "stages": placement,
        "runtime": runtime or {},
    }
    with registered_parts():
        return build_graph(GraphSpec.model_validate(document))


def specs(*streams: str) -> list[SourceSpec]:
    """Sources of these names."""
    return [SourceSpec(f"/somewhere/{stream}", stream) for stream in streams]


def canonical(events: Sequence[Event]) -> str:
    """The canonical log."""
    return "".join(event.to_json(canonical=True) + "\n" for event in events)


def run_log(graph: Graph, runner: type[Runner], *streams: str, sinks: list[Sink] | None = None) -> str:
    """Run to the end; returns the canonical log."""
    session = Session(graph, runner, specs(*streams or ("cam",)), sinks or [])
    return canonical(list(session.events()))


def local_log(graph: Graph, *streams: str) -> str:
    """What the local runner writes."""
    return run_log(graph, LocalRunner, *streams)


def results(runner: Runner, *streams: str) -> dict[tuple[str, Edge], list[Any]]:
    """All packets that a runner gives, per stream and edge."""
    found: dict[tuple[str, Edge], list[Any]] = {}
    for batch in runner.run(specs(*streams or ("cam",))):
        for edge, packets in batch.packets.items():
            found.setdefault((batch.stream, edge), []).extend(packets)
    return found
