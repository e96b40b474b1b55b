"""Reads the declaration of a graph: YAML to typed models, with overrides and environment values.

Precedence, weakest first: an operator's defaults, the graph file, named command-line flags, ``-o node.key=value``.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onlooker.operators.events import STREAM_NAME
from onlooker.operators.registry import source_class, suggest

from .errors import GraphError
from .secrets import Secrets

__all__ = [
    "CameraSpec",
    "GraphSpec",
    "NodeSpec",
    "RuntimeSpec",
    "apply_override",
    "builtin_graphs",
    "load_spec",
    "validate",
]

M = TypeVar("M", bound=BaseModel)


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeSpec(_Spec):
    """One node as the graph file writes it."""

    use: str = Field(description="Name of the operator or source in the registry.")
    inputs: dict[str, str] = Field(default_factory=dict, description="Input port -> node.port that feeds it.")
    config: dict[str, Any] = Field(default_factory=dict, description="The operator's own settings.")
    stage: str = Field(default="models", description="Nodes of one stage share a thread (local) or an actor (Ray).")


class StageSpec(_Spec):
    """Where a stage runs under Ray; the local runner gives each stage a thread."""

    replicas: int = Field(default=1, ge=1, description="Actors; more than one only for stateless operators.")
    num_cpus: float = Field(default=1.0, ge=0, description="CPUs each actor reserves; fractions are fine.")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs each actor reserves; fractions are fine.")
    device: str = Field(default="cpu", description="Device of the models of this stage.")
    max_restarts: int = Field(default=2, ge=0, description="How often a lost actor is replaced and its state restored.")


class RuntimeSpec(_Spec):
    """How the graph runs, the same for both runners."""

    exact: bool = Field(default=True, description="Fixed shapes and threads: byte-identical canonical logs.")
    threads: int = Field(default=1, ge=1, description="Torch threads of each stage.")
    in_flight: int = Field(default=3, ge=1, description="Batches between two stages before the slower one blocks.")
    snapshot_every: int = Field(default=32, ge=1, description="Batches between two snapshots of an actor's state.")


class CameraSpec(_Spec):
    """One live source that belongs to a graph."""

    name: str = Field(pattern=STREAM_NAME, description="Name of the stream in the events.")
    url: str = Field(repr=False, description="Address, with ${env:NAME} or ${secret:NAME} for what is secret.")


@dataclass(frozen=True)
class StandIn:
    """What takes the place of an operator whose model cannot be used with the rest of the graph."""

    model: str
    """Only where this model was to be used."""
    use: str
    """The operator instead."""
    settings: Mapping[str, Any]
    """Its settings, over those of the node."""


class GraphSpec(_Spec):
    """A whole graph as its file writes it."""

    name: str = Field(description="Name of the graph.")
    description: str = Field(default="", description="What the graph is for.")
    nodes: dict[str, NodeSpec] = Field(description="The nodes by name.")
    stages: dict[str, StageSpec] = Field(default_factory=dict, description="Placement of stages under Ray.")
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec, description="How the graph runs.")
    cameras: tuple[CameraSpec, ...] = Field(default=(), description="Watched where the command names no source.")


def builtin_graphs() -> list[str]:
    """Names of the graphs that come with the package."""
    folder = importlib.resources.files("onlooker.configs")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def _read(name_or_path: str) -> tuple[str, str]:
    path = Path(name_or_path)
    if name_or_path in builtin_graphs():
        file = importlib.resources.files("onlooker.configs") / f"{name_or_path}.yaml"
        return file.read_text(encoding="utf-8"), f"built-in graph {name_or_path!r}"
    if not path.exists():
        if path.suffix in (".yaml", ".yml") or "/" in name_or_path:
            raise GraphError(f"graph file {name_or_path!r} does not exist; check the path.")
        raise GraphError(f"unknown graph {name_or_path!r}; {suggest(name_or_path, builtin_graphs())}")
    try:
        return path.read_text(encoding="utf-8"), f"graph file {path.name!r}"
    except (OSError, UnicodeDecodeError) as error:
        raise GraphError(f"cannot read graph file {name_or_path!r}: {error}") from None


def _resolve(value: Any, where: str, secrets: Secrets) -> Any:
    if isinstance(value, Mapping):
        return {k: _resolve(v, f"{where}.{k}" if where else str(k), secrets) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolve(v, f"{where}[{i}]", secrets) for i, v in enumerate(value)]
    return secrets.resolve(value, where) if isinstance(value, str) else value


def apply_override(document: dict[str, Any], assignment: str) -> None:
    """Apply one ``node.key=value`` (or ``runtime.key=value``, ``stages.name.key=value``) to a graph document.

    Values are read as YAML, so that numbers, booleans, null and lists come out as such.

    Raises:
        GraphError: the assignment has another form, or names a node that is not there.
    """
    target, equals, text = assignment.partition("=")
    path = target.strip().split(".")
    if not equals or len(path) < 2 or not all(path):
        raise GraphError(f"override {assignment!r} should read node.key=value, e.g. decode.fps=4.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GraphError(f"override {assignment!r}: the value is not valid YAML ({_first_line(error)}).") from None
    if path[0] in ("runtime", "stages"):
        holder = document.setdefault(path[0], {})
    else:
        nodes = document.get("nodes") or {}
        if path[0] not in nodes:
            raise GraphError(
                f"override {assignment!r}: the graph has no node {path[0]!r}; {suggest(path[0], [*nodes, 'runtime'])}"
            )
        holder = nodes[path[0]].setdefault("config", {})
    for key in path[1:-1]:
        holder = holder.setdefault(key, {})
    holder[path[-1]] = value


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _known_keys(model: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    """Field names at the place that an ``extra_forbidden`` error points into."""
    for part in list(location)[:-1]:
        field = model.model_fields.get(str(part))
        if field is not None:  # else a key of a mapping: its values have the type found one level up
            model = next(_models_of(field.annotation), model)
    return list(model.model_fields)


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_of(argument)


def validate(model: type[M], document: Any, where: str) -> M:
    """Validate ``document``; the first mistake becomes one line that says where it is and what would be right.

    Raises:
        GraphError: the document does not fit.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            key = str(first["loc"][-1])
            raise GraphError(
                f"{where}: unknown key {place!r}; {suggest(key, _known_keys(model, first['loc']))}"
            ) from None
        if first["type"] == "missing":
            raise GraphError(f"{where}: {place!r} is missing.") from None
        said = first.get("ctx", {}).get("error") if first["type"] == "value_error" else first["msg"].lower()
        raise GraphError(f"{where}: {place or 'the document'}: {str(said).rstrip('.')}.") from None


def _make_live(document: dict[str, Any]) -> None:
    """Put the live source in the place of a file decoder, with those of its settings that both have.

    Frames then come one by one, so that few are to be under way at a time, unless the graph says otherwise.
    """
    for node in document["nodes"].values():
        if node.get("use") == "decode":
            known = source_class("live").Config.model_fields
            node["use"] = "live"
            node["config"] = {key: value for key, value in (node.get("config") or {}).items() if key in known}
            document["runtime"] = {"in_flight": 2, **(document.get("runtime") or {})}


def _replace_nodes(document: dict[str, Any], stand_ins: Mapping[str, StandIn]) -> None:
    """Let other operators do the work of some; all else that is set for them stays."""
    for node in document["nodes"].values():
        stand_in = stand_ins.get(node.get("use"))
        if stand_in is not None and node["config"].get("model", stand_in.model) == stand_in.model:
            node["use"] = stand_in.use
            node["config"].update(stand_in.settings)


def load_spec(
    name_or_path: str,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    overrides: Iterable[str] = (),
    live: bool = False,
    stand_ins: Mapping[str, StandIn] | None = None,
    secrets: Secrets | None = None,
) -> tuple[GraphSpec, Secrets]:
    """Load a graph by name or path, set what named flags say, then apply overrides.

    Args:
        name_or_path: a built-in graph or a YAML file.
        settings: operator name -> config values, for every node that uses the operator.
        overrides: ``node.key=value`` assignments.
        live: read live sources, also where the graph decodes a file; implied by a list of cameras.
        stand_ins: operator name -> what takes its place.
        secrets: where ``${env:NAME}`` and ``${secret:NAME}`` are looked up.

    Returns:
        The validated spec, and the secrets, which remember what it holds of them.

    Raises:
        GraphError: no such graph, unknown key, malformed override.
        SecretsError: a value is not there.
    """
    text, where = _read(name_or_path)
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GraphError(f"{where} is not valid YAML: {str(error).replace(chr(10), ' ')}") from None
    if not isinstance(document, dict):
        raise GraphError(f"{where} should hold keys such as 'name' and 'nodes', not {type(document).__name__}.")
    nodes = document.get("nodes")
    if not isinstance(nodes, dict) or not all(isinstance(n, dict) for n in nodes.values()):
        raise GraphError(f"{where}: 'nodes' should map each node's name to its settings.")
    if live or document.get("cameras"):
        _make_live(document)
    for node in nodes.values():
        node.setdefault("config", {}).update((settings or {}).get(node.get("use"), {}))
    for assignment in overrides:
        apply_override(document, assignment)
    _replace_nodes(document, stand_ins or {})
    secrets = secrets or Secrets()
    document = _resolve(document, "", secrets)  # once: what comes from outside is not looked into again
    return validate(GraphSpec, document, where), secrets
