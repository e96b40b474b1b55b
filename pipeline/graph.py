"""A validated graph: nodes in topological order, typed edges, stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from onlooker.operators.contract import Config, Operator, Port, Source
from onlooker.operators.packets import Events, Packet
from onlooker.operators.registry import OPERATORS, SOURCES, UnknownNameError, operator_class, source_class, suggest

from .config import CameraSpec, GraphSpec, RuntimeSpec, StageSpec, StandIn, load_spec, validate
from .errors import GraphError
from .secrets import Secrets

__all__ = ["Edge", "Graph", "Node", "build_graph", "load_graph"]

Edge = str
"""``node.port``: the output port that feeds an input."""


@dataclass(frozen=True)
class Node:
    """One node, its class and its validated config."""

    name: str
    use: str
    cls: type[Operator[Any]] | type[Source[Any]]
    config: Config
    inputs: dict[str, Edge]
    stage: str

    @property
    def is_source(self) -> bool:
        """Whether packets begin here."""
        return issubclass(self.cls, Source)

    @property
    def ports(self) -> dict[str, Port]:
        """The input ports; a source has none."""
        return dict(getattr(self.cls, "inputs", {}))

    @property
    def outputs(self) -> dict[Edge, type[Packet]]:
        """The edges that begin here, with the type of their packets."""
        return {f"{self.name}.{port}": kind for port, kind in self.cls.outputs.items()}


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; the first is the source."""

    name: str
    description: str
    nodes: tuple[Node, ...]
    runtime: RuntimeSpec
    placement: dict[str, StageSpec]
    cameras: tuple[CameraSpec, ...] = ()
    """Live sources that the graph names; the addresses may hold credentials."""
    secrets: Secrets = dataclasses.field(default_factory=Secrets)

    @property
    def source(self) -> Node:
        """The node that delivers the packets."""
        return self.nodes[0]

    @property
    def live(self) -> bool:
        """Whether its source is for cameras: it drops frames instead of waiting, and takes credits."""
        return issubclass(self.source.cls, Source) and self.source.cls.live

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages after the source, in the order in which packets pass them."""
        return tuple(dict.fromkeys(node.stage for node in self.nodes if not node.is_source))

    def stage_nodes(self, stage: str) -> tuple[Node, ...]:
        """The nodes of one stage, in topological order."""
        return tuple(n for n in self.nodes if n.stage == stage and not n.is_source)

    @property
    def edges(self) -> dict[Edge, type[Packet]]:
        """All edges with the type of their packets."""
        return {edge: kind for node in self.nodes for edge, kind in node.outputs.items()}

    @property
    def event_edges(self) -> tuple[Edge, ...]:
        """The edges that carry events."""
        return tuple(edge for edge, kind in self.edges.items() if kind is Events)

    @property
    def controls(self) -> frozenset[str]:
        """Kinds of control packets that its nodes obey."""
        return frozenset().union(*(n.cls.controls for n in self.nodes if issubclass(n.cls, Operator)))

    @property
    def answers_boxes(self) -> bool:
        """Whether what obeys ``ask`` knows where in the picture things are, and so can be asked about a part of it."""
        return any("ask" in n.cls.controls and "tokens" in n.inputs for n in self.nodes if issubclass(n.cls, Operator))

    def edges_named(self, port: str) -> tuple[Edge, ...]:
        """The edges whose port has this name, e.g. all ``previews``."""
        return tuple(edge for edge in self.edges if edge.partition(".")[2] == port)

    def needed_after(self, position: int, sinks: Iterable[Edge]) -> frozenset[Edge]:
        """Edges that anything after stage number ``position`` reads (-1: after the source), sinks included."""
        later = set(self.stages[position + 1 :])
        needed = {edge for node in self.nodes if node.stage in later for edge in node.inputs.values()}
        return frozenset(needed | set(sinks) | set(self.event_edges))

    def read_ports(self, node: Node, sinks: Iterable[Edge]) -> frozenset[str]:
        """Output ports of ``node`` that a node or a sink reads."""
        read = {edge for other in self.nodes for edge in other.inputs.values()} | set(sinks) | set(self.event_edges)
        return frozenset(port for port in node.cls.outputs if f"{node.name}.{port}" in read)

    def without(self, names: Iterable[str]) -> Graph:
        """The graph without these nodes and without whatever depends on them."""
        gone = set(names)
        kept = []
        for node in self.nodes:
            if node.name in gone or any(edge.partition(".")[0] in gone for edge in node.inputs.values()):
                gone.add(node.name)
            else:
                kept.append(node)
        return dataclasses.replace(self, nodes=tuple(kept))

    def document(self) -> dict[str, Any]:
        """The graph as it will run, all defaults filled in, as a plain document; cameras without credentials."""
        nodes = {}
        for node in self.nodes:
            entry: dict[str, Any] = {"use": node.use}
            if node.inputs:
                entry["inputs"] = dict(node.inputs)
            entry["config"] = node.config.model_dump(mode="json")
            entry["stage"] = node.stage
            nodes[node.name] = entry
        return {
            "name": self.name,
            "description": self.description,
            **({"cameras": [{"name": c.name, "url": _shown(c.url)} for c in self.cameras]} if self.cameras else {}),
            "nodes": nodes,
            "stages": {s: self.stage_spec(s).model_dump(mode="json") for s in self.stages},
            "runtime": self.runtime.model_dump(mode="json"),
        }

    def stage_spec(self, stage: str) -> StageSpec:
        """Placement of one stage."""
        return self.placement.get(stage, StageSpec())

    def to_yaml(self) -> str:
        """``document`` as YAML, values from the environment and secrets masked."""
        return yaml.safe_dump(self.secrets.mask(self.document()), sort_keys=False, allow_unicode=True)


def _shown(url: str) -> str:
    from onlooker.operators.decode.live.address import parse_source

    return parse_source(url).shown


def load_graph(
    name_or_path: str,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    overrides: Iterable[str] = (),
    live: bool = False,
    stand_ins: Mapping[str, StandIn] | None = None,
    secrets: Secrets | None = None,
) -> Graph:
    """Load, override and validate a graph; the arguments are those of ``load_spec``.

    Raises:
        GraphError: with one line that says what is wrong, and holds no secret.
        SecretsError: a secret or environment variable is not there.
    """
    secrets = secrets or Secrets()
    try:
        spec, _ = load_spec(
            name_or_path, settings=settings, overrides=overrides, live=live, stand_ins=stand_ins, secrets=secrets
        )
        return build_graph(spec, secrets)
    except GraphError as error:
        raise GraphError(secrets.mask(str(error))) from None


def build_graph(spec: GraphSpec, secrets: Secrets | None = None) -> Graph:
    """Turn a spec into a graph: resolve names, check ports and types, sort, check stages.

    Raises:
        GraphError: with one line that says what is wrong.
    """
    nodes = {name: _node(spec, name) for name in spec.nodes}
    for node in nodes.values():
        _check_inputs(spec, nodes, node)
    ordered = list(_sorted(spec, nodes))
    sources = [node.name for node in ordered if node.is_source]
    if len(sources) != 1:
        raise GraphError(
            f"graph {spec.name!r} needs exactly one source node ({', '.join(SOURCES)}), "
            f"it has {', '.join(sources) or 'none'}."
        )
    placement = dict(spec.stages)
    graph = Graph(
        spec.name, spec.description, tuple(ordered), spec.runtime, placement, spec.cameras, secrets or Secrets()
    )
    _check_stages(graph)
    return graph


def _node(spec: GraphSpec, name: str) -> Node:
    written = spec.nodes[name]
    if not name.isidentifier():
        raise GraphError(f"graph {spec.name!r}: node name {name!r} should be letters, digits and _ only.")
    try:
        cls: Any = source_class(written.use) if written.use in SOURCES else operator_class(written.use)
    except UnknownNameError:
        raise GraphError(
            f"graph {spec.name!r}, node {name!r}: unknown operator {written.use!r}; "
            f"{suggest(written.use, [*SOURCES, *OPERATORS])}"
        ) from None
    config = validate(cls.Config, written.config, f"graph {spec.name!r}, node {name!r}")
    return Node(name, written.use, cls, config, dict(written.inputs), written.stage)


def _check_inputs(spec: GraphSpec, nodes: dict[str, Node], node: Node) -> None:
    where = f"graph {spec.name!r}, node {node.name!r}"
    for port, edge in node.inputs.items():
        if port not in node.ports:
            raise GraphError(f"{where}: unknown input {port!r}; {suggest(port, list(node.ports))}")
        producer, _, output = edge.partition(".")
        if producer not in nodes:
            raise GraphError(f"{where}: input {port!r} reads {edge!r}, no such node; {suggest(producer, list(nodes))}")
        offered = nodes[producer].cls.outputs
        if output not in offered:
            raise GraphError(
                f"{where}: input {port!r} reads {edge!r}, no such output; {suggest(output, list(offered))}"
            )
        if not issubclass(offered[output], node.ports[port].type):
            raise GraphError(
                f"{where}: input {port!r} takes {node.ports[port].type.__name__}, "
                f"but {edge!r} gives {offered[output].__name__}."
            )
    for port, declared in node.ports.items():
        if port not in node.inputs and not declared.optional:
            raise GraphError(f"{where}: input {port!r} ({declared.type.__name__}) is not connected.")


def _sorted(spec: GraphSpec, nodes: dict[str, Node]) -> Iterator[Node]:
    """Topological order, file order among nodes that are free to come next."""
    left = dict(nodes)
    while left:
        ready = [n for n in left.values() if not any(e.partition(".")[0] in left for e in n.inputs.values())]
        if not ready:
            raise GraphError(f"graph {spec.name!r}: these nodes feed each other in a circle: {', '.join(left)}.")
        node = next((n for n in ready if n.is_source), ready[0])
        yield left.pop(node.name)


def _check_stages(graph: Graph) -> None:
    position = {stage: i for i, stage in enumerate(graph.stages)}
    stage_of = {n.name: n.stage for n in graph.nodes if not n.is_source}
    for node in graph.nodes:
        for edge in node.inputs.values():
            producer = edge.partition(".")[0]
            if producer in stage_of and position[stage_of[producer]] > position[node.stage]:
                raise GraphError(
                    f"graph {graph.name!r}: node {node.name!r} in stage {node.stage!r} reads {edge!r} of the later "
                    f"stage {stage_of[producer]!r}; put them in one stage or in another order."
                )
    for stage in graph.placement:
        if stage not in position and stage != graph.source.stage:
            raise GraphError(f"graph {graph.name!r}: unknown stage {stage!r}; {suggest(stage, list(position))}")
    for stage in graph.stages:
        keyed = [n.name for n in graph.stage_nodes(stage) if getattr(n.cls, "keyed", False)]
        if graph.stage_spec(stage).replicas > 1 and keyed:
            raise GraphError(
                f"graph {graph.name!r}: stage {stage!r} asks for replicas, but {keyed[0]!r} keeps state per stream; "
                f"give it a stage of its own."
            )
