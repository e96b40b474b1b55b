"""How the memory's horizon decides what a caption tells of: captions of generated scene sequences, by horizon.

    python benchmarks/horizon.py --data FOLDER --cache FOLDER [--sequences 3] [--interval 5]

Sequences of 20 dev photographs, each shown 6 to 12 s, are made of cached trunk tokens (``onlooker.training.features``)
rather than of video, so that only memory and captioner run. A caption is right when it is nearer (sentence BLEU-4) to
the scene that fills most of its span than to a random other scene of its sequence.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import publish, table

from onlooker.operators.caption.node import GitCaptioner, GitCaptionerConfig
from onlooker.operators.contract import Context, Inputs, Operator
from onlooker.operators.memory.node import ClusteringMemory, ClusteringMemoryConfig
from onlooker.operators.packets import Packet, Tokens
from onlooker.training.bleu import corpus_bleu, sentence_bleu
from onlooker.training.captions import Split
from onlooker.training.flickr import data_root

FPS = 2.0


@dataclass(frozen=True)
class Sequence20:
    """Frames of a sequence and its truth: per scene (start, end, photograph)."""

    frames: list[Tokens]
    scenes: list[tuple[float, float, int]]

    @property
    def end(self) -> float:
        """End of the last scene in seconds."""
        return self.scenes[-1][1]


def draw(rng: np.random.Generator, split: Split, scenes: int) -> Sequence20:
    """A sequence of different photographs; every frame is one of the views, slightly disturbed."""
    photos = rng.choice(len(split.captions), scenes, replace=False)
    borders = np.concatenate([[0.0], np.cumsum(np.round(rng.uniform(6.0, 12.0, scenes), 1))])
    frames = []
    for index in range(int(borders[-1] * FPS)):
        t = index / FPS
        photo = int(photos[np.searchsorted(borders, t, side="right") - 1])
        grid = np.asarray(split.tokens[photo, rng.integers(split.tokens.shape[1])], dtype=np.float32)
        noise = 1.0 + 0.1 * rng.standard_normal(grid.shape, dtype=np.float32)
        frames.append(Tokens("s", 0, t, grid * noise))
    spans = zip(borders[:-1].tolist(), borders[1:].tolist(), photos.tolist(), strict=True)
    return Sequence20(frames, list(spans))


def drive(node: Operator[Any], port: str, packets: Sequence[Packet], out: str, t_end: float) -> list[Any]:
    """All packets through a node, and its flush."""
    state = node.initial_state("s")
    state, outputs = node.process(state, Inputs({port: packets}, packets[-1].t, packets[-1].t))
    state, last = node.flush(state, t_end)
    return [*outputs.packets.get(out, []), *last.packets.get(out, [])]


def captions_of(sequence: Sequence20, memory: ClusteringMemory, captioner: GitCaptioner) -> list[tuple[int, str]]:
    """For each caption the scene that fills most of its span, and its text."""
    memories = drive(memory, "tokens", sequence.frames, "memory", sequence.end)
    found = []
    for packet in drive(captioner, "memory", memories, "events", sequence.end):
        (event,) = packet.events
        shares = [min(event.t_end, end) - max(event.t_start, start) for start, end, _ in sequence.scenes]
        found.append((int(np.argmax(shares)), event.data.text))
    return found


def score(
    sequences: Sequence[Sequence20], split: Split, memory: ClusteringMemory, captioner: GitCaptioner
) -> tuple[float, float, float]:
    """Share of captions nearer to their own scene, corpus BLEU-4, and the share for captions in another order."""
    rng = np.random.default_rng(0)
    nearer, twin, hypotheses, references = [], [], [], []
    for sequence in sequences:
        found = captions_of(sequence, memory, captioner)
        shuffled = rng.permutation(len(found))
        for position, (scene, text) in enumerate(found):
            other = int(rng.choice([i for i in range(len(sequence.scenes)) if i != scene]))
            own, far = (split.captions[sequence.scenes[i][2]] for i in (scene, other))
            nearer.append(sentence_bleu(text, own) > sentence_bleu(text, far))
            stray = found[shuffled[position]][1]
            twin.append(sentence_bleu(stray, own) > sentence_bleu(stray, far))
            hypotheses.append(text)
            references.append(own)
    return float(np.mean(nearer)), corpus_bleu(hypotheses, references)[3], float(np.mean(twin))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the data folder (default: ONLOOKER_DATA)")
    parser.add_argument("--cache", type=Path, required=True, help="folder of onlooker.training.features")
    parser.add_argument("--model", default="tiny", help="any name load_captioner takes")
    parser.add_argument("--sequences", type=int, default=3)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    split = Split.open(data_root(arguments.data), arguments.cache, None, "dev")
    rng = np.random.default_rng(arguments.seed)
    sequences = [draw(rng, split, 20) for _ in range(arguments.sequences)]
    rows = []
    step = arguments.interval
    for horizon, prefix in ((step, 0), (step, 1), (2 * step, 0), (20.0, 0), (60.0, 0), (None, 0)):
        memory = ClusteringMemory(ClusteringMemoryConfig(horizon=horizon))
        captioner = GitCaptioner(GitCaptionerConfig(model=arguments.model, interval=step, prefix=prefix))
        memory.open(Context())
        captioner.open(Context())
        nearer, bleu, twin = score(sequences, split, memory, captioner)
        rows.append(["none" if horizon is None else f"{horizon:g} s", prefix, nearer, bleu, twin])
    header = ["horizon", "captions in prefix", "nearer to own scene", "BLEU-4", "captions shuffled (twin)"]
    note = (
        f"\n\n{len(sequences)} sequences of 20 dev scenes of 6-12 s, {FPS:g} fps, "
        f"a caption every {arguments.interval:g} s."
    )
    publish("Captions by memory horizon", table(header, rows) + note, arguments.out)


if __name__ == "__main__":
    main()
