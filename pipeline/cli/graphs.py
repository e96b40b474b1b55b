"""``onlooker graph``: what a graph is made of, and whether it is right."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from onlooker.operators.events import event_json_schema

from ..config import builtin_graphs
from ..graph import Graph, load_graph
from ..secrets import Secrets
from .run import add_secrets_option

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add ``onlooker graph``."""
    parser = commands.add_parser("graph", help="show or check a graph, or the schema of events")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser(
        "show", help="draw a graph with every setting; values from the environment and secrets are masked"
    )
    validate = actions.add_parser("validate", help="check a graph without running it")
    for sub in (show, validate):
        sub.add_argument("graph", nargs="?", default="file", metavar="NAME|FILE", help="default: %(default)s")
        sub.add_argument("-o", dest="overrides", metavar="NODE.KEY=VALUE", action="append", default=[])
        add_secrets_option(sub)
    show.set_defaults(func=_show)
    validate.set_defaults(func=_validate)
    names = actions.add_parser("list", help="list the built-in graphs")
    names.set_defaults(func=_list)
    schema = actions.add_parser("schema", help="print the JSON Schema of events")
    schema.set_defaults(func=_schema)


def _show(args: argparse.Namespace) -> int:
    graph = load_graph(args.graph, overrides=args.overrides, secrets=Secrets(args.secrets))
    print(_drawing(graph))
    sys.stdout.write(graph.to_yaml())
    return 0


def _drawing(graph: Graph) -> str:
    """The graph as comment lines: each node, its stage, what feeds it and what it gives."""
    width = max(len(node.name) for node in graph.nodes)
    lines = []
    for node in graph.nodes:
        feeds = ", ".join(node.inputs.values())
        gives = ", ".join(f"{edge.partition('.')[2]}: {kind.__name__}" for edge, kind in node.outputs.items())
        arrow = f"{feeds} -> " if feeds else ""
        lines.append(f"# {node.name:<{width}}  [{node.stage}]  {arrow}{gives}")
    return "\n".join(lines)


def _validate(args: argparse.Namespace) -> int:
    graph = load_graph(args.graph, overrides=args.overrides, secrets=Secrets(args.secrets))
    print(f"{graph.name}: valid, {len(graph.nodes)} nodes in {len(graph.stages) + 1} stages")
    return 0


def _list(args: argparse.Namespace) -> int:
    for name in builtin_graphs():
        print(f"{name:<12} {load_graph(name).description}")
    return 0


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(event_json_schema(), indent=2))
    return 0
