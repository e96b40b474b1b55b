"""Does a caption follow the scene after an hour of another?

Each trial shows one photograph for an hour, then another for 30 seconds, both under a moving camera, and asks which of
the two the next caption tells of (smoothed BLEU against the captions of either). The twin is the same memory without
restarts, as the paper has it: its centres carry the weight of the whole hour, and the new scene wins nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import publish, table

from onlooker.operators.caption.node import GitCaptioner
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.memory.node import ClusteringMemory
from onlooker.operators.packets import Embedding, Tokens
from onlooker.operators.tower import load_tower
from onlooker.pipeline.assemble import make_plan
from onlooker.training.bleu import sentence_bleu
from onlooker.training.features import view_pixels
from onlooker.training.flickr import read_split

STEP = 0.5
VIEWS = 12


@dataclass(frozen=True)
class Views:
    """Camera views of one photograph as the tower sees them."""

    tokens: npt.NDArray[np.float32]
    """(VIEWS, N, D)."""
    features: npt.NDArray[np.float32]
    """(VIEWS, E)."""


def views_of(path: Path) -> Views:
    """All views of one photograph."""
    pixels = np.stack([view_pixels(path, view, seed=5) for view in range(1, VIEWS + 1)])
    found = load_tower("tiny").encode_frames(pixels)
    return Views(found.tokens.numpy(), found.features.numpy())


def stream(first: Views, second: Views, hour: float) -> Iterator[tuple[Tokens, Embedding]]:
    """Two samples a second: ``hour`` seconds of the first scene, 30 s of the second, in random views."""
    rng = np.random.default_rng(0)
    for i in range(int((hour + 30) / STEP)):
        t, view = i * STEP, rng.integers(VIEWS)
        scene = first if t < hour else second
        yield Tokens("trial", 0, t, scene.tokens[view]), Embedding("trial", 0, t, scene.features[view])


def caption(frames: Iterator[tuple[Tokens, Embedding]], hour: float, horizon: float | None, config: Any) -> str:
    """The caption of the last interval."""
    memory = ClusteringMemory(ClusteringMemory.Config(horizon=horizon))
    captioner = GitCaptioner(config)
    memory.open(Context())
    captioner.open(Context())
    kept, state = memory.initial_state("trial"), captioner.initial_state("trial")
    for tokens, embedding in frames:
        t = tokens.t
        kept, out = memory.process(kept, Inputs({"tokens": [tokens]}, t, t))
        if t >= hour + 30 - config.interval:
            packets = {"memory": out.packets.get("memory", []), "embedding": [embedding]}
            state, _ = captioner.process(state, Inputs(packets, t, t))
    _, told = captioner.flush(state, hour + 30)
    text: str = told.packets["events"][0].events[0].data.text  # type: ignore[attr-defined]
    return text


def main() -> None:
    """Run the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("ONLOOKER_DATA"), help="folder that holds flickr8k/")
    parser.add_argument("--split", default="test", choices=["dev", "test"])
    parser.add_argument("--trials", type=int, default=50, help="pairs of scenes (default: %(default)s)")
    parser.add_argument(
        "--twin-trials", type=int, default=10, help="pairs for the twin, a minute or more each (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=3600.0, help="of the first scene (default: an hour)")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    args = parser.parse_args()
    if not args.data:
        parser.error("name the data folder by --data or ONLOOKER_DATA")
    photographs = read_split(Path(args.data), args.split)
    pairs = np.random.default_rng(1).choice(len(photographs), (args.trials, 2), replace=False)
    nodes = {node.name: node.config for node in make_plan("file").graph.nodes}
    horizon_of_graph = nodes["memory"].horizon
    kinds: dict[str, float | None] = {
        f"file graph, horizon {horizon_of_graph:g} s": horizon_of_graph,
        "horizon 60 s": 60.0,
        "twin: never restarts": None,
    }
    trials = {kind: args.trials if horizon else args.twin_trials for kind, horizon in kinds.items()}
    new = dict.fromkeys(kinds, 0)
    for done, (a, b) in enumerate(pairs, 1):
        first, second = (views_of(photographs.images / photographs.files[i]) for i in (a, b))
        for kind, horizon in kinds.items():
            if done > trials[kind]:
                continue
            # What a memory that restarts has seen before its last two restarts cannot change it.
            hour = args.seconds if horizon is None else min(args.seconds, 3 * max(horizon, nodes["caption"].interval))
            text = caption(stream(first, second, hour), hour, horizon, nodes["caption"])
            of_new, of_old = (sentence_bleu(text, photographs.captions[i]) for i in (b, a))
            new[kind] += of_new > of_old
        print(f"{done}: {new}", file=sys.stderr, flush=True)
    rows = [
        [kind, count / trials[kind], trials[kind], ">= .80" if kinds[kind] else "< .80"] for kind, count in new.items()
    ]
    body = table(["memory", "captions nearer to the new scene", "trials", "goal"], rows)
    body += f"\n\nFlickr8k {args.split}: {args.seconds / 60:.0f} minutes of one scene, then 30 s of another."
    publish("Captions after an hour of another scene", body, args.out)


if __name__ == "__main__":
    main()
