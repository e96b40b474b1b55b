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
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import publish, table

from onlooker.operators.caption.node import GitCaptioner
from onlooker.operators.contract import Context, Inputs
from onlooker.operators.memory.node import ClusteringMemory
from onlooker.operators.packets import Memory, Tokens
from onlooker.operators.tower import load_tower
from onlooker.training.bleu import sentence_bleu
from onlooker.training.features import view_pixels
from onlooker.training.flickr import read_split

STEP = 0.5
VIEWS = 12


def tokens_of(path: Path) -> npt.NDArray[np.float32]:
    """(VIEWS, N, D) float32 tokens of camera views of one photograph."""
    pixels = np.stack([view_pixels(path, view, seed=5) for view in range(1, VIEWS + 1)])
    found: npt.NDArray[np.float32] = load_tower("tiny").encode_frames(pixels).tokens.numpy()
    return found


def stream(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], hour: float) -> Iterator[Tokens]:
    """Two samples a second: ``hour`` seconds of the first scene, 30 s of the second, in random views."""
    rng = np.random.default_rng(0)
    for i in range(int((hour + 30) / STEP) + 1):
        scene = first if i * STEP < hour else second
        yield Tokens("trial", 0, i * STEP, scene[rng.integers(VIEWS)])


def caption(frames: Iterator[Tokens], horizon: float | None, captioner: GitCaptioner) -> str:
    """The caption after the last frame."""
    operator = ClusteringMemory(ClusteringMemory.Config(horizon=horizon))
    operator.open(Context())
    state, latest = operator.initial_state("trial"), None
    for frame in frames:
        state, out = operator.process(state, Inputs({"tokens": [frame]}, frame.t, frame.t))
        latest = out.packets.get("memory", [latest])[-1]
    assert isinstance(latest, Memory)
    before = captioner.initial_state("trial")
    before, _ = captioner.process(before, Inputs({"memory": [latest]}, latest.t, latest.t))
    _, out = captioner.flush(before, latest.t + STEP)
    text: str = out.packets["events"][0].events[0].data.text  # type: ignore[attr-defined]
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
    captioner = GitCaptioner(GitCaptioner.Config())
    captioner.open(Context())
    kinds: dict[str, float | None] = {
        "file graph, horizon 5 s": 5.0,
        "horizon 60 s": 60.0,
        "twin: never restarts": None,
    }
    trials = {kind: args.trials if horizon else args.twin_trials for kind, horizon in kinds.items()}
    new = dict.fromkeys(kinds, 0)
    for done, (a, b) in enumerate(pairs, 1):
        first, second = (tokens_of(photographs.images / photographs.files[i]) for i in (a, b))
        for kind, horizon in kinds.items():
            if done > trials[kind]:
                continue
            # What a memory that restarts has seen before its last two restarts cannot change it.
            hour = args.seconds if horizon is None else min(args.seconds, 3 * horizon)
            text = caption(stream(first, second, hour), horizon, captioner)
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
