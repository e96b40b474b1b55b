"""From what a user asks for to a graph and sources that can run; the command line and ``watch`` share it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from onlooker.operators.events import stream_name

from .config import StandIn, builtin_graphs
from .errors import UsageError
from .graph import Edge, Graph, load_graph
from .runtime.batch import SourceSpec
from .secrets import Secrets
from .session import Runner

__all__ = [
    "EMBEDDED_MODEL",
    "Mode",
    "Plan",
    "camera_specs",
    "is_live",
    "make_plan",
    "runner_factory",
    "source_spec",
    "source_specs",
]

Mode = Literal["live", "paper"]
"""How a graph sees a file: as a stream, or as the papers' evaluations do."""

EMBEDDED_MODEL = "tiny"
"""The model whose weights come with the package."""

_DECODERS = ("git_captioner", "dense_captioner", "paper_captioner")
"""Nodes that read the tokens of the tower they were trained with."""

_DETECTORS = ("object_detector",)
"""Nodes that read the feature maps of the tower they were trained with."""

_LIVE_FORMS = {"file": "live", "objects": "live-objects"}
"""Built-in graphs for files, and those that do the same with live sources."""

_LOCALIZERS = ("query_localizer", "moment_localizer")
"""Nodes that look for what is asked for in words."""


@dataclass
class Plan:
    """What will run."""

    graph: Graph
    notices: list[str] = field(default_factory=list)
    """What the user should know before it runs, one line each."""


def make_plan(
    graph: str = "file",
    *,
    mode: Mode = "live",
    model: str | None = None,
    pretrained: str | None = None,
    queries: Sequence[str] = (),
    classes: str | Path | Sequence[str] = (),
    overrides: Iterable[str] = (),
    live: bool = False,
    record: float = 0.0,
    commands: bool = False,
    secrets: Secrets | None = None,
) -> Plan:
    """Load a graph and fit it to the wishes of the user.

    Args:
        graph: name of a built-in graph, or a YAML file.
        mode: ``paper`` for the form of a built-in graph that sees a file as a whole, where it has one.
        model: tower to use instead of the graph's: ``tiny``, an open_clip name, a checkpoint.
        pretrained: open_clip pretrained tag of that tower.
        queries: what to look for, in words.
        classes: names of what to look for, or a file with one a line; see ``onlooker.operators.localize.class_lists``.
        overrides: ``node.key=value`` assignments.
        live: the sources are live. ``file`` then is the graph ``live``, and ``objects`` is ``live-objects``; in any
            other graph the source ``live`` takes the place of the file decoder.
        record: seconds that live sources keep for clips, where the graph says nothing about it.
        commands: queries may be added while it runs, so the node for them stays though there are none.
        secrets: where ``${env:NAME}`` and ``${secret:NAME}`` of the graph are looked up.

    Raises:
        GraphError: the graph or an override is wrong.
        SecretsError: a secret or environment variable is not there.
        UsageError: nothing would be left to do, or the graph has no such mode.
    """
    if mode == "paper":
        graph = _paper_form(graph)
    settings: dict[str, dict[str, Any]] = {}
    for use in ("clip_tower", "query_localizer"):
        settings[use] = {} if model is None else {"model": model, "pretrained": pretrained}
    settings["git_captioner"] = {} if model is None else {"tower": model, "pretrained": pretrained}
    for use in _LOCALIZERS:
        wanted = settings.setdefault(use, {})
        if queries:
            wanted["queries"] = list(queries)
        if classes:
            wanted["classes"] = str(classes) if isinstance(classes, str | Path) else list(classes)
    if live:
        graph = _LIVE_FORMS.get(graph, graph)
    overrides = list(overrides)
    stand_ins: dict[str, StandIn] = {}
    if model is not None and model != EMBEDDED_MODEL:  # which the embedded localizer was not trained with
        asked = {"model": model, "pretrained": pretrained}
        stand_ins["moment_localizer"] = StandIn(EMBEDDED_MODEL, "query_localizer", asked)
    load = partial(
        load_graph, graph, settings=settings, overrides=overrides, live=live, stand_ins=stand_ins, secrets=secrets
    )
    plan = Plan(load())
    if record and plan.graph.live and getattr(plan.graph.source.config, "record", record) == 0.0:
        settings["live"] = {"record": record}
        plan.graph = load()
    if live and not plan.graph.live:
        raise UsageError(f"graph {plan.graph.name!r} looks at a whole file; it cannot watch a live source.")
    if live and graph not in _LIVE_FORMS.values():
        plan.notices.append(f"graph {plan.graph.name!r} reads a live source: its source node is `live`, not `decode`.")
    _drop_idle(plan, keep_queries=commands)
    if not plan.graph.event_edges:
        raise UsageError("nothing to do: the graph has no captions and no query; add --query TEXT or --classes FILE.")
    return plan


def _paper_form(graph: str) -> str:
    paper = f"{graph}-paper"
    if paper not in builtin_graphs():
        forms = [name.removesuffix("-paper") for name in builtin_graphs() if name.endswith("-paper")]
        raise UsageError(f"graph {graph!r} has no paper mode; those that have: {', '.join(forms)} (--graph NAME).")
    return paper


def _drop_idle(plan: Plan, *, keep_queries: bool) -> None:
    """Take out nodes that have nothing to say: no queries asked, nothing that can read this tower."""
    localizers = [n for n in plan.graph.nodes if n.use in _LOCALIZERS]
    asked = {n.name for n in localizers if getattr(n.config, "queries", ()) or getattr(n.config, "classes", ())}
    idle = [] if keep_queries else [n.name for n in localizers if n.name not in asked]
    towers = {n.name: str(getattr(n.config, "model", "")) for n in plan.graph.nodes if n.use == "clip_tower"}
    foreign = next((m for m in towers.values() if m != EMBEDDED_MODEL), None)
    decoders = _embedded(plan.graph, _DECODERS)
    if foreign is not None and decoders:
        idle += decoders
        plan.notices.append(
            f"no captions: the embedded caption decoder belongs to {EMBEDDED_MODEL!r}, not to {foreign!r}; "
            f"give it another with -o {decoders[0]}.model=FOLDER."
        )
    if foreign is not None and (objects := _embedded(plan.graph, _DETECTORS)):
        idle += objects
        plan.notices.append(f"no objects: the embedded detector reads the tower {EMBEDDED_MODEL!r}, not {foreign!r}.")
    graph = plan.graph.without(idle)
    needed = {edge.partition(".")[0] for node in graph.nodes for edge in node.inputs.values()}
    speaking = {edge.partition(".")[0] for edge in graph.event_edges}
    while unread := [n.name for n in graph.nodes if n.name not in needed | speaking and not n.is_source]:
        graph = graph.without(unread)
        needed = {edge.partition(".")[0] for node in graph.nodes for edge in node.inputs.values()}
    plan.graph = graph


def _embedded(graph: Graph, uses: Sequence[str]) -> list[str]:
    """Names of the nodes of these kinds whose model is the one that comes with the package."""
    return [n.name for n in graph.nodes if n.use in uses and getattr(n.config, "model", None) == EMBEDDED_MODEL]


def is_live(uri: str) -> bool:
    """Whether this is the address of something that is watched as it happens, and no file."""
    head, colon, _ = uri.strip().partition(":")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri.strip()):
        return head.lower() != "file"
    return (bool(colon) and head.lower() in ("webcam", "lavfi")) or bool(re.fullmatch(r"/dev/video\d+", uri.strip()))


def source_specs(uris: Sequence[str]) -> list[SourceSpec]:
    """One stream for each source; names that would come twice are numbered.

    Raises:
        UsageError: a source is empty.
        AddressError: a live source's address cannot be read; the message holds no credentials.
    """
    specs: list[SourceSpec] = []
    for uri in uris:
        if is_live(uri):
            from onlooker.operators.decode.live.address import parse_source

            parse_source(uri)
        spec, number = source_spec(uri), 1
        taken = {other.stream for other in specs}
        while (name := spec.stream if number == 1 else f"{spec.stream}-{number}") in taken:
            number += 1
        specs.append(SourceSpec(uri, name))
    return specs


def camera_specs(graph: Graph) -> list[SourceSpec]:
    """The streams of the cameras that the graph names.

    Raises:
        UsageError: it names none, or two by the same name.
        AddressError: an address cannot be read.
    """
    if not graph.cameras:
        raise UsageError(f"nothing to watch: give a SOURCE, or a list of cameras in the graph {graph.name!r}.")
    names = [camera.name for camera in graph.cameras]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"graph {graph.name!r} has two cameras {twice!r}; give each a name of its own.")
    source_specs([camera.url for camera in graph.cameras])
    return [SourceSpec(camera.url, camera.name) for camera in graph.cameras]


def source_spec(uri: str, stream: str | None = None) -> SourceSpec:
    """Name a stream after its file or host; never after a path or credentials.

    Raises:
        UsageError: ``uri`` is empty.
    """
    if not uri:
        raise UsageError("the source is empty; give a file or the address of a camera.")
    if stream is None and is_live(uri) and "://" not in uri:
        stream = stream_name(uri.partition(":")[0] if uri.startswith("lavfi:") else uri.removeprefix("/dev/"))
    if stream is None:
        parts = urlsplit(uri) if "://" in uri else None
        stream = stream_name((parts.hostname or "stream") if parts and parts.scheme != "file" else Path(uri).stem)
    return SourceSpec(uri, stream)


def runner_factory(name: str, address: str | None = None) -> Callable[[Graph, frozenset[Edge]], Runner]:
    """The runner of that name: ``ray`` or ``local``.

    Raises:
        UsageError: there is no such runner, or an address was given to the local one.
    """
    if name == "local":
        if address is not None:
            raise UsageError("--address joins a Ray cluster; use it with --runner ray.")
        from .runtime.local import LocalRunner

        return LocalRunner
    if name == "ray":
        from .runtime.ray_runner import RayRunner

        return lambda graph, sinks: RayRunner(graph, sinks, address=address)
    raise UsageError(f"unknown runner {name!r}; known are: ray, local.")
